module sockets

go 1.25

require phasor v0.0.0

replace phasor => ../../../../sdk/go
