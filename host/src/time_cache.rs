//! The time as a worker sees it, because a request asks for it often and dates change once a
//! second: each thread keeps the milliseconds of its loop's turn and the texts made of the second.
//!
//! A worker calls [`update`] once per turn of its loop (nginx: `ngx_time_update`); everything else
//! reads. A thread that never calls `update` gets the true time with its first read, and then that.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
// Tokio's, so that a test that pauses time pauses this, too.
use tokio::time::Instant;

/// The texts of one second.
struct Texts {
    /// Seconds since the epoch that the texts are of; `u64::MAX` before the first.
    second: u64,
    http: [u8; 29],
    header: HeaderValue,
    common_log: [u8; 26],
    iso: [u8; 25],
}

struct Cache {
    /// Milliseconds since the epoch; 0 before the first read.
    now_ms: u64,
    /// The same moment by the clock that never steps.
    instant: Option<Instant>,
    texts: Texts,
}

thread_local! {
    static CACHE: RefCell<Cache> = const {
        RefCell::new(Cache {
            now_ms: 0,
            instant: None,
            texts: Texts {
                second: u64::MAX,
                http: [0; 29],
                header: HeaderValue::from_static(""),
                common_log: [0; 26],
                iso: [0; 25],
            },
        })
    };
}

/// Milliseconds since the epoch by the clock; the cached time stays as it is.
#[must_use]
pub fn clock_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads the clock for this thread; gives the milliseconds since the epoch.
pub fn update() -> u64 {
    let (now, instant) = (clock_ms(), Instant::now());
    CACHE.with_borrow_mut(|cache| {
        cache.now_ms = now;
        cache.instant = Some(instant);
    });
    now
}

/// The moment of the last [`update`] of this thread, for durations.
#[must_use]
pub fn instant() -> Instant {
    match CACHE.with_borrow(|cache| cache.instant) {
        Some(instant) => instant,
        None => Instant::now(),
    }
}

/// Milliseconds since the epoch, as of the last [`update`] of this thread.
#[must_use]
pub fn now_ms() -> u64 {
    match CACHE.with_borrow(|cache| cache.now_ms) {
        0 => update(),
        now => now,
    }
}

/// The time since the process first asked: never steps, never cached.
#[must_use]
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The processor time that this thread has used: whatever else the machine does, a budget in it
/// says how long something has computed.
#[must_use]
pub fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The cached time as a `Date` header.
#[must_use]
pub fn http_date() -> HeaderValue {
    with_texts(|texts| texts.header.clone())
}

/// The cached time as HTTP writes it: `Mon, 23 Nov 2026 21:00:00 GMT`.
#[must_use]
pub fn http_date_bytes() -> [u8; 29] {
    with_texts(|texts| texts.http)
}

/// The zone of the logs: `TZ`, else the system's, as it was when the process first asked (nginx: at
/// its start).
fn zone() -> &'static jiff::tz::TimeZone {
    static ZONE: OnceLock<jiff::tz::TimeZone> = OnceLock::new();
    ZONE.get_or_init(jiff::tz::TimeZone::system)
}

/// How far the zone's clocks are ahead of UTC at a moment, in seconds.
#[must_use]
pub fn local_offset(seconds: u64) -> i32 {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    zone().to_offset(moment).seconds()
}

/// The zone's clocks at a moment, and how far they are ahead.
fn local(seconds: u64) -> (Civil, i32) {
    let offset = local_offset(seconds);
    (
        civil(seconds.saturating_add_signed(offset.into())),
        offset / 60,
    )
}

/// Seconds since the epoch as the error log writes them, local time: `2026/11/23 21:00:00`.
#[must_use]
pub fn error_log_time_of(seconds: u64) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = local(seconds).0;
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Seconds since the epoch by ISO 8601 in UTC, without the zone: `2026-11-23T21:00:00`.
#[must_use]
pub fn iso_time_of(seconds: u64) -> String {
    iso_text(civil(seconds))
}

fn iso_text(moment: Civil) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = moment;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// The cached time as `$time_local` writes it: `23/Nov/2026:21:00:00 +0000`.
#[must_use]
pub fn common_log_time() -> [u8; 26] {
    with_texts(|texts| texts.common_log)
}

/// The cached time as `$time_iso8601` writes it: `2026-11-23T21:00:00+00:00`.
#[must_use]
pub fn iso_time() -> [u8; 25] {
    with_texts(|texts| texts.iso)
}

fn with_texts<R>(read: impl FnOnce(&Texts) -> R) -> R {
    let second = now_ms() / 1000;
    CACHE.with_borrow_mut(|cache| {
        if cache.texts.second != second {
            cache.texts = texts_of(second);
        }
        read(&cache.texts)
    })
}

/// A moment's parts in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// The year.
    pub year: u64,
    /// The month, from 1.
    pub month: u8,
    /// The day of the month, from 1.
    pub day: u8,
    /// The hour.
    pub hour: u8,
    /// The minute.
    pub minute: u8,
    /// The second.
    pub second: u8,
    /// The day of the week, from 0 for Sunday.
    pub weekday: u8,
}

/// The calendar's view of seconds since the epoch.
#[must_use]
pub fn civil(seconds: u64) -> Civil {
    let small = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
    let days = seconds / 86_400;
    let rest = seconds % 86_400;
    // Years are counted from March, so that the leap day is a year's last; 719,468 days lie between
    // the first of March of year 0 and the epoch, and an era of 400 years has 146,097.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Civil {
        year,
        month: small(month),
        day: small(day),
        hour: small(rest / 3_600),
        minute: small(rest / 60 % 60),
        second: small(rest % 60),
        weekday: small((days + 4) % 7),
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// Seconds since the epoch as HTTP writes them.
#[must_use]
pub fn http_date_of(seconds: u64) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        weekday,
    } = civil(seconds);
    let weekday = WEEKDAYS[usize::from(weekday)];
    let month = MONTHS[usize::from(month) - 1];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

fn texts_of(seconds: u64) -> Texts {
    let (moment, offset) = local(seconds);
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = moment;
    let name = MONTHS[usize::from(month) - 1];
    let http = http_date_of(seconds);
    let (sign, ahead) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
    let (hours, minutes) = (ahead / 60, ahead % 60);
    Texts {
        second: seconds,
        http: fixed(&http),
        header: HeaderValue::from_str(&http).unwrap_or(HeaderValue::from_static("")),
        common_log: fixed(&format!(
            "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} {sign}{hours:02}{minutes:02}"
        )),
        iso: fixed(&format!(
            "{}{sign}{hours:02}:{minutes:02}",
            iso_text(moment)
        )),
    }
}

/// The text as an array; a year of five digits is cut, not a panic.
fn fixed<const N: usize>(text: &str) -> [u8; N] {
    let mut array = [b' '; N];
    for (to, from) in array.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    array
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{
        CACHE, common_log_time, cpu, error_log_time_of, http_date, http_date_bytes, http_date_of,
        iso_time, monotonic,
    };

    #[test]
    fn dates_agree_with_httpdate() {
        let mut seconds = 0;
        while seconds < 5_000_000_000 {
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(http_date_of(seconds), expected);
            seconds += 86_400 * 3 + 12_345;
        }
    }

    #[test]
    fn texts_follow_the_cached_time() {
        CACHE.with_borrow_mut(|cache| cache.now_ms = 1_795_467_600_999);
        assert_eq!(http_date(), "Mon, 23 Nov 2026 21:00:00 GMT".to_owned());
        assert_eq!(&http_date_bytes(), b"Mon, 23 Nov 2026 21:00:00 GMT");
        // The zone is the machine's: the tests of the binary set it.
        assert_eq!(error_log_time_of(1_795_467_600)[..8], *"2026/11/");
        assert_eq!(common_log_time()[14..20], *b":00:00");
        let before = iso_time();
        CACHE.with_borrow_mut(|cache| cache.now_ms += 1);
        let after = iso_time();
        assert_eq!((before[18], after[18]), (b'0', b'1'));
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a sleep without a runtime is what it is about"
    )]
    fn cpu_counts_work_and_no_sleep() {
        let start = cpu();
        let mut sum = 0_u64;
        while cpu() == start {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let (worked, wall) = (cpu(), tokio::time::Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        assert!(cpu() - worked < wall.elapsed() / 2);
    }

    #[test]
    fn monotonic_never_goes_back() {
        let first = monotonic();
        assert!(monotonic() >= first);
    }
}
