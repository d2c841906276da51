//! The calendar: days and dates, and the HTTP date formats, without a C library's time zone data.

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment, broken down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u8,
    /// 1 to 31.
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    /// 0 is Sunday.
    pub(crate) weekday: u8,
    /// 1 to 366.
    pub(crate) yearday: u16,
}

fn small(n: i64) -> u8 {
    u8::try_from(n).unwrap_or(0)
}

impl Date {
    /// The date of `seconds` since 1970.
    pub(crate) fn of(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years that begin in March put the leap day last; 400 of them are 146,097 days.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year,
            month: small(month),
            day: small(of_year - (153 * march_month + 2) / 5 + 1),
            hour: small(rest / 3_600),
            minute: small(rest / 60 % 60),
            second: small(rest % 60),
            weekday: small((days + 4).rem_euclid(7)),
            yearday: u16::try_from(days - days_before(year, 1) + 1).unwrap_or(0),
        }
    }

    pub(crate) fn weekday_name(&self) -> &'static str {
        WEEKDAYS[usize::from(self.weekday % 7)]
    }

    pub(crate) fn month_name(&self) -> &'static str {
        MONTHS[usize::from(self.month.clamp(1, 12) - 1)]
    }

    /// `2010-11-19`
    pub(crate) fn day_text(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// `20:56:31`
    pub(crate) fn clock_text(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }

    /// `Thu, 18 Nov 2010 11:27:35 GMT`
    pub(crate) fn http_text(&self) -> String {
        let (weekday, month) = (&self.weekday_name()[..3], &self.month_name()[..3]);
        format!(
            "{weekday}, {:02} {month} {:04} {} GMT",
            self.day,
            self.year,
            self.clock_text()
        )
    }

    /// `Thu, 18-Nov-10 11:27:35 GMT`: browsers take two digits of the year, up to 2037.
    pub(crate) fn cookie_text(&self) -> String {
        let (weekday, month) = (&self.weekday_name()[..3], &self.month_name()[..3]);
        let year = if self.year > 2037 {
            self.year
        } else {
            self.year % 100
        };
        format!(
            "{weekday}, {:02}-{month}-{year:02} {} GMT",
            self.day,
            self.clock_text()
        )
    }
}

/// Days from 1970 to the first of a month, which may lie outside 1 to 12.
fn days_before(year: i64, month: i64) -> i64 {
    let year = year + (month - 1).div_euclid(12);
    let month = (month - 1).rem_euclid(12) + 1;
    let march_year = if month <= 2 { year - 1 } else { year };
    let era = march_year.div_euclid(400);
    let of_era = march_year.rem_euclid(400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march_month + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Seconds since 1970 of a date whose fields may lie outside their ranges, as `mktime` takes them.
pub(crate) fn seconds(year: i64, month: i64, day: i64, clock: [i64; 3]) -> i64 {
    (days_before(year, month) + day - 1) * 86_400 + clock[0] * 3_600 + clock[1] * 60 + clock[2]
}

fn month_number(name: &[u8]) -> Option<i64> {
    let at = MONTHS
        .iter()
        .position(|m| m.as_bytes()[..3].eq_ignore_ascii_case(name))?;
    i64::try_from(at + 1).ok()
}

fn digits(text: &[u8]) -> Option<i64> {
    let good = !text.is_empty() && text.len() <= 4 && text.iter().all(u8::is_ascii_digit);
    good.then(|| text.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
}

/// Reads the three formats of HTTP: RFC 822, RFC 850 and C's `asctime`.
pub(crate) fn parse_http(text: &[u8]) -> Option<i64> {
    let words: Vec<&[u8]> = text
        .split(|b| matches!(b, b' ' | b',' | b'-'))
        .filter(|w| !w.is_empty())
        .collect();
    let (year, month, day, clock) = match words.as_slice() {
        // asctime: Sun Nov  6 08:49:37 1994
        [_, month, day, clock, year, ..] if month_number(month).is_some() => {
            (*year, *month, *day, *clock)
        }
        [_, day, month, year, clock, ..] => (*year, *month, *day, *clock),
        _ => return None,
    };
    let month = month_number(month)?;
    let day = digits(day)?;
    // With hyphens it is RFC 850, whose years have two digits.
    let year = match (digits(year)?, year.len(), text.contains(&b'-')) {
        (n, 2, true) if n < 70 => n + 2000,
        (n, 2, true) => n + 1900,
        (n, 4, false) => n,
        _ => return None,
    };
    let mut parts = clock.split(|b| *b == b':').map(digits);
    let clock = [parts.next()??, parts.next()??, parts.next()??];
    let lengths = [
        31,
        if days_before(year, 3) - days_before(year, 2) == 29 {
            29
        } else {
            28
        },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let longest = lengths.get(usize::try_from(month - 1).ok()?)?;
    let good = (1..=*longest).contains(&day)
        && clock[0] < 24
        && clock[1] < 60
        && clock[2] < 60
        && year >= 1970;
    good.then(|| seconds(year, month, day, clock))
}
