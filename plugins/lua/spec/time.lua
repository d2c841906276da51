for _, t in ipairs {0, 1290079655, 1547549824, 951782400, 951868800, 2147483647, 4102444800, 1230768000} do
    ngx.say(ngx.http_time(t), " | ", ngx.cookie_time(t), " ", tostring(ngx.parse_http_time(ngx.http_time(t)) == t))
end
for _, s in ipairs {"Thu, 18 Nov 2010 11:27:35 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06-Nov-1994 08:49:37 GMT", "junk", "", "Thu, 32 Nov 2010 11:27:35 GMT", "Thu, 18 Nov 2010 25:27:35 GMT", "Thu, 29 Feb 2011 11:27:35 GMT", "Thu, 29 Feb 2012 11:27:35 GMT"} do
    ngx.say(s, " -> ", tostring(ngx.parse_http_time(s)))
end
ngx.say((pcall(ngx.http_time, "x")), (pcall(ngx.cookie_time)), (pcall(ngx.parse_http_time, 1)))
ngx.say(tostring(ngx.today():find("^%d%d%d%d%-%d%d%-%d%d$") == 1), tostring(ngx.utctime():find("^%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d$") == 1), #ngx.localtime())
ngx.say(type(ngx.now()), type(ngx.time()), tostring(math.floor(ngx.now()) - ngx.time() <= 1), select('#', ngx.update_time()))
local f = "!%a|%A|%b|%B|%c|%C|%d|%D|%e|%F|%g|%G|%h|%H|%I|%j|%m|%M|%n|%p|%r|%R|%S|%t|%T|%u|%U|%V|%w|%W|%x|%X|%y|%Y|%%"
for _, t in ipairs {0, 1290079655, 951782400, 1230768000, 1104537600, 1609459199, 1609459200, 1640995199, 1483228800, 1419984000} do ngx.say((os.date(f, t))) end
ngx.say(os.date("!%z %Z", 0))
local t = os.date("!*t", 1290079655)
ngx.say(t.year, " ", t.month, " ", t.day, " ", t.hour, " ", t.min, " ", t.sec, " ", t.wday, " ", t.yday, " ", tostring(t.isdst))
local l = os.date("*t", 1290079655)
ngx.say(os.time(l))
l.month = l.month + 14
l.day = l.day - 40
ngx.say(os.time(l) - 1290079655)
ngx.say(os.time {year = 2010, month = 1, day = 1} - os.time {year = 2009, month = 12, day = 31, hour = 12})
ngx.say((select(2, pcall(os.time, {year = 1})):gsub("^.-:%d+: ", "")), " ", os.difftime(5, 3), " ", type(os.clock()))
local m = require "resty.core.time"
ngx.say(type(m.monotonic_msec()), " ", type(m.monotonic_time()))
