-- The text of a number: whole ones, those that are too long, those that are not whole, and no number.
for _, n in ipairs {
  0, 1, -1, 9, 10, -10, 99, 100, 255, 65536, 2^31, -2^31, 2^32, 2^53, -2^53,
  9999999999999, 99999999999999, -99999999999999, 1e14, -1e14, 1e15, 123456789012345678, 1e100,
  0.5, -0.5, 1/3, 0.1, 1.5, 12345.678, 1e-5, 1e-10, 99999999999999.5, 9999999999999.5,
  1/0, -1/0,
} do
  ngx.say(tostring(n), " ", n .. "", " ", string.format("%s", n), " ", n)
end
ngx.say(tostring(0/0):find("nan") ~= nil)
local t = { 1, 2.5, 1e14, -7 }
ngx.say(table.concat(t, ","))
ngx.say(("x"):rep(3) .. 4 .. 5.25 .. -6)
