//! Numbers as C's `%.Ng` writes them and as `strtod` reads them, which lua-cjson's results rest on.

use std::io::Write as _;

/// Writes `n` (finite) like C's `%.{precision}g`.
pub(crate) fn push_g(out: &mut Vec<u8>, n: f64, precision: usize) {
    // Up to 10^precision, and never above 2^53, a whole number is written as it is.
    const POWERS: [f64; 4] = [1e14, 1e15, 9e15, 9e15];
    let limit = if precision >= 14 {
        POWERS[(precision - 14).min(3)]
    } else {
        10f64.powi(i32::try_from(precision).unwrap_or(1))
    };
    if n.fract() == 0.0 && n.abs() < limit && !(n == 0.0 && n.is_sign_negative()) {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        return push_whole(out, n as i64);
    }
    let digits = precision.max(1);
    let mut text = [0u8; 40];
    let mut rest = &mut text[..];
    let room = rest.len();
    if write!(rest, "{n:.*e}", digits - 1).is_err() {
        return;
    }
    let used = room - rest.len();
    let text = &text[..used];
    let split = text.iter().position(|b| *b == b'e').unwrap_or(used);
    let exponent = std::str::from_utf8(text.get(split + 1..).unwrap_or_default())
        .ok()
        .and_then(|e| e.parse().ok())
        .unwrap_or(0i32);
    layout(out, &text[..split], exponent, digits);
}

fn push_whole(out: &mut Vec<u8>, n: i64) {
    let mut text = [0u8; 20];
    let mut at = text.len();
    let mut left = n.unsigned_abs();
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if n < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&text[at..]);
}

/// Lays out `-d.ddd` times ten to the `exponent` as `%g` does: without zeros at the end.
fn layout(out: &mut Vec<u8>, mantissa: &[u8], exponent: i32, precision: usize) {
    let mut digits = [0u8; 40];
    let mut count = 0;
    for byte in mantissa {
        if byte.is_ascii_digit() {
            digits[count] = *byte;
            count += 1;
        }
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    let digits = &digits[..count];
    if mantissa.first() == Some(&b'-') {
        out.push(b'-');
    }
    if exponent < -4 || usize::try_from(exponent).is_ok_and(|e| e >= precision) {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        push_whole(out, i64::from(exponent.abs()));
    } else if let Ok(whole) = usize::try_from(exponent) {
        for place in 0..=whole {
            out.push(digits.get(place).copied().unwrap_or(b'0'));
        }
        if count > whole + 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[whole + 1..]);
        }
    } else {
        out.extend_from_slice(b"0.");
        for _ in 1..exponent.unsigned_abs() {
            out.push(b'0');
        }
        out.extend_from_slice(digits);
    }
}

/// Reads a number as C's `strtod` does (decimal, hexadecimal, inf, nan): it, and its length.
pub(crate) fn read(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let negative = text.first() == Some(&b'-');
    let body = &text[sign..];
    let (value, length) =
        if body.len() > 2 && body[0] == b'0' && body[1] | 32 == b'x' && body[2].is_ascii_hexdigit()
        {
            read_hex(body)
        } else if starts(body, b"infinity") {
            (f64::INFINITY, 8)
        } else if starts(body, b"inf") {
            (f64::INFINITY, 3)
        } else if starts(body, b"nan") {
            (f64::NAN, 3)
        } else {
            read_decimal(body)?
        };
    Some((if negative { -value } else { value }, sign + length))
}

fn starts(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len())
        .is_some_and(|t| t.eq_ignore_ascii_case(word))
}

fn digits_from(text: &[u8], from: usize) -> usize {
    text[from..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count()
}

fn read_decimal(text: &[u8]) -> Option<(f64, usize)> {
    let whole = digits_from(text, 0);
    let mut end = whole;
    let mut fraction = 0;
    if text.get(end) == Some(&b'.') {
        fraction = digits_from(text, end + 1);
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let exponent = if end + 1 + sign <= text.len() {
            digits_from(text, end + 1 + sign)
        } else {
            0
        };
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    let value = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    Some((value, end))
}

fn read_hex(text: &[u8]) -> (f64, usize) {
    let mut value = 0.0;
    let mut scale = 1.0;
    let mut end = 2;
    let mut point = false;
    while let Some(byte) = text.get(end) {
        if let Some(digit) = char::from(*byte).to_digit(16) {
            value = value * 16.0 + f64::from(digit);
            scale *= if point { 16.0 } else { 1.0 };
        } else if *byte == b'.' && !point {
            point = true;
        } else {
            break;
        }
        end += 1;
    }
    (value / scale, end)
}
