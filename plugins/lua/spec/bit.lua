local bit = require "bit"
ngx.say(bit.tobit(0xffffffff), " ", bit.tobit(2^40 + 5), " ", bit.tobit(-1), " ", bit.tobit("12"))
ngx.say(bit.bnot(0), " ", bit.band(0xff, 0x0f, 3), " ", bit.bor(1, 2, 4), " ", bit.bxor(0xa5a5f0f0, 0xaa55ff00))
ngx.say(bit.lshift(1, 31), " ", bit.rshift(-1, 28), " ", bit.arshift(-256, 8), " ", bit.lshift(1, 33))
ngx.say(bit.rol(0x12345678, 12), " ", bit.ror(0x12345678, 12), " ", bit.bswap(0x12345678))
ngx.say(bit.tohex(1), " ", bit.tohex(-1), " ", bit.tohex(0xabcdef, 4), " ", bit.tohex(0xabcdef, -6), " ", bit.tohex(1, 0))
ngx.say(bit.tobit(1.5), " ", bit.tobit(2.5), " ", bit.tobit(-1.5))
ngx.say((pcall(bit.band)))
ngx.say((pcall(bit.bor, "x")))
