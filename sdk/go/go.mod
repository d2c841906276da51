module phasor

go 1.25
