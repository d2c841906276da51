//! C's `strftime` in the C locale, for `os.date`.

use crate::lib_date::Date;
use std::fmt::Write as _;

/// Writes `date` as `format` says. `at` is the time it stands for, `offset` its zone (`None`: UTC).
/// An unknown conversion stays as it is, as with glibc.
pub(crate) fn write(out: &mut Vec<u8>, format: &[u8], date: &Date, at: i64, offset: Option<i64>) {
    let mut rest = format.iter();
    let mut text = String::new();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let mut letter = rest.next().copied();
        if let Some(b'E' | b'O') = letter {
            letter = rest.next().copied();
        }
        text.clear();
        match letter {
            None => out.push(b'%'),
            Some(letter) => match convert(&mut text, letter, date, at, offset) {
                Ok(()) => out.extend_from_slice(text.as_bytes()),
                Err(_) => out.extend_from_slice(&[b'%', letter]),
            },
        }
    }
}

/// Appends one conversion; an error when there is none of this letter.
#[expect(
    clippy::too_many_lines,
    reason = "one arm for each conversion of strftime"
)]
fn convert(
    text: &mut String,
    letter: u8,
    date: &Date,
    at: i64,
    offset: Option<i64>,
) -> std::fmt::Result {
    let hour12 = (date.hour + 11) % 12 + 1;
    let century = date.year.rem_euclid(100);
    let (day, month, half) = (
        date.weekday_name(),
        date.month_name(),
        if date.hour < 12 { "AM" } else { "PM" },
    );
    let (clock, weekday) = (
        date.clock_text(),
        if date.weekday == 0 { 7 } else { date.weekday },
    );
    match letter {
        b'a' => text.write_str(&day[..3]),
        b'A' => text.write_str(day),
        b'b' | b'h' => text.write_str(&month[..3]),
        b'B' => text.write_str(month),
        b'c' => write!(
            text,
            "{} {} {:2} {clock} {}",
            &day[..3],
            &month[..3],
            date.day,
            date.year
        ),
        b'C' => write!(text, "{:02}", date.year.div_euclid(100)),
        b'd' => write!(text, "{:02}", date.day),
        b'D' | b'x' => write!(text, "{:02}/{:02}/{century:02}", date.month, date.day),
        b'e' => write!(text, "{:2}", date.day),
        b'F' => text.write_str(&date.day_text()),
        b'g' => write!(text, "{:02}", iso_week(date).0.rem_euclid(100)),
        b'G' => write!(text, "{}", iso_week(date).0),
        b'H' => write!(text, "{:02}", date.hour),
        b'I' => write!(text, "{hour12:02}"),
        b'j' => write!(text, "{:03}", date.yearday),
        b'k' => write!(text, "{:2}", date.hour),
        b'l' => write!(text, "{hour12:2}"),
        b'm' => write!(text, "{:02}", date.month),
        b'M' => write!(text, "{:02}", date.minute),
        b'n' => text.write_str("\n"),
        b'p' => text.write_str(half),
        b'P' => text.write_str(&half.to_ascii_lowercase()),
        b'r' => write!(
            text,
            "{hour12:02}:{:02}:{:02} {half}",
            date.minute, date.second
        ),
        b'R' => write!(text, "{:02}:{:02}", date.hour, date.minute),
        b's' => write!(text, "{at}"),
        b'S' => write!(text, "{:02}", date.second),
        b't' => text.write_str("\t"),
        b'T' | b'X' => text.write_str(&clock),
        b'u' => write!(text, "{weekday}"),
        b'U' => write!(
            text,
            "{:02}",
            (date.yearday + 6 - u16::from(date.weekday)) / 7
        ),
        b'V' => write!(text, "{:02}", iso_week(date).1),
        b'w' => write!(text, "{}", date.weekday),
        b'W' => write!(text, "{:02}", (date.yearday + 7 - u16::from(weekday)) / 7),
        b'y' => write!(text, "{century:02}"),
        b'Y' => write!(text, "{}", date.year),
        b'z' => zone(text, offset.unwrap_or(0)),
        b'Z' => match offset {
            None => text.write_str("GMT"),
            Some(0) => text.write_str("UTC"),
            Some(seconds) => zone(text, seconds),
        },
        b'%' => text.write_str("%"),
        _ => Err(std::fmt::Error),
    }
}

/// `+hhmm`
fn zone(text: &mut String, offset: i64) -> std::fmt::Result {
    let minutes = offset.abs() / 60;
    write!(
        text,
        "{}{:02}{:02}",
        if offset < 0 { '-' } else { '+' },
        minutes / 60,
        minutes % 60
    )
}

const fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The year and the week of ISO 8601: weeks begin on Monday, the first one has a Thursday.
fn iso_week(date: &Date) -> (i64, i64) {
    let weekday = i64::from(if date.weekday == 0 { 7 } else { date.weekday });
    let yearday = i64::from(date.yearday);
    let week = (yearday - weekday + 10) / 7;
    let weeks_of = |year: i64, first: i64| {
        if first == 4 || (first == 3 && leap(year)) {
            53
        } else {
            52
        }
    };
    // The weekday of 1 January, of this year and the last.
    let first = (weekday - yearday).rem_euclid(7) + 1;
    if week < 1 {
        let year = date.year - 1;
        let days = if leap(year) { 366 } else { 365 };
        (year, weeks_of(year, (first - 1 - days).rem_euclid(7) + 1))
    } else if week > weeks_of(date.year, first) {
        (date.year + 1, 1)
    } else {
        (date.year, week)
    }
}
