//! Moments as they are asked for: so long ago (`2h`), a time of day (`06:00`), a day, a day with a time, with or without a zone.
//!
//! Without a zone a moment is local to the machine this program runs on. A time of day is the last one there was: at most 24 hours ago.

use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset, macros::format_description};

use crate::api::fault::{Fault, Kind};

/// The offset that holds at a moment.
type Zone<'a> = &'a dyn Fn(OffsetDateTime) -> UtcOffset;

/// Milliseconds since 1970.
///
/// # Errors
/// 400 for what is no moment.
pub(super) fn read(name: &str, text: &str, now: OffsetDateTime) -> Result<u64, Fault> {
    let zone = |at| UtcOffset::local_offset_at(at).unwrap_or(UtcOffset::UTC);
    let moment = parse(text.trim(), now, &zone);
    let milliseconds = moment.and_then(|moment| u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok());
    milliseconds.ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let message = format!(
            "`{name}`: `{shown}` is no moment; write 2026-11-23T06:00:00Z, 2026-11-23T06:00 (local time), 2026-11-23, 06:00 (the last one there \
             was) or 90s, 30m, 2h, 7d (so long ago)"
        );
        Fault::new(Kind::Value, message)
    })
}

fn parse(text: &str, now: OffsetDateTime, zone: Zone<'_>) -> Option<OffsetDateTime> {
    if let Some(long) = ago(text) {
        return now.checked_sub(long);
    }
    if let Some(time) = time(text) {
        let today = now.to_offset(zone(now)).date();
        let at = |date| local(PrimitiveDateTime::new(date, time), zone);
        return Some(at(today)).filter(|at| *at <= now).or_else(|| today.previous_day().map(at));
    }
    let Some((day, rest)) = text.split_once(['T', 't', ' ']) else {
        return Some(local(PrimitiveDateTime::new(date(text)?, Time::MIDNIGHT), zone));
    };
    let day = date(day)?;
    if let Some(time) = time(rest) {
        return Some(local(PrimitiveDateTime::new(day, time), zone));
    }
    let (time_of_day, offset) = with_offset(rest)?;
    Some(PrimitiveDateTime::new(day, time_of_day).assume_offset(offset))
}

/// `90s`, `30m`, `2h`, `7d`
fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number: u32 = digits(text.strip_suffix(unit)?)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 24 * 3_600,
        _ => return None,
    };
    Some(Duration::seconds(i64::from(number) * seconds))
}

fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn date(text: &str) -> Option<Date> {
    Date::parse(text, format_description!("[year]-[month]-[day]")).ok()
}

/// `06:00`, `06:00:00`, `06:00:00.000`
fn time(text: &str) -> Option<Time> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let parts: Vec<u8> =
        clock.split(':').map(|part| digits(part).filter(|_| (1..=2).contains(&part.len()))).collect::<Option<_>>()?;
    let (hour, minute, second) = match (&*parts, fraction) {
        (&[hour, minute], None) => (hour, minute, 0),
        (&[hour, minute, second], _) => (hour, minute, second),
        _ => return None,
    };
    let nanoseconds = match fraction {
        None => 0,
        Some(fraction) if (1..=9).contains(&fraction.len()) => digits(&format!("{fraction:0<9}"))?,
        Some(_) => return None,
    };
    Time::from_hms_nano(hour, minute, second, nanoseconds).ok()
}

/// A time with `Z` or `+01:00` behind it. A `+` that was not percent-encoded comes as a blank.
fn with_offset(text: &str) -> Option<(Time, UtcOffset)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((time(clock)?, UtcOffset::UTC));
    }
    let at = text.rfind(['+', '-', ' '])?;
    let (clock, offset) = text.split_at_checked(at)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let sign = if sign == "-" { -1 } else { 1 };
    let part = |text: &str| digits::<i8>(text).filter(|_| text.len() == 2).map(|number| number * sign);
    Some((time(clock)?, UtcOffset::from_hms(part(hours)?, part(minutes)?, 0).ok()?))
}

/// A local moment. Of the two in the hour that comes twice in autumn, one of them; in spring, the hour that is left out is the one after.
fn local(at: PrimitiveDateTime, zone: Zone<'_>) -> OffsetDateTime {
    let guess = zone(at.assume_utc());
    at.assume_offset(zone(at.assume_offset(guess)))
}

#[cfg(test)]
mod tests {
    use time::macros::{datetime, offset};

    use super::*;

    /// Two hours before Greenwich until noon of the 23rd, one hour after that: a clock that is set.
    fn zone(at: OffsetDateTime) -> UtcOffset {
        if at < datetime!(2026-11-23 12:00 UTC) { offset!(+2) } else { offset!(+1) }
    }

    #[test]
    fn moments() {
        let now = datetime!(2026-11-23 05:30 UTC);
        let cases = [
            ("90s", datetime!(2026-11-23 05:28:30 UTC)),
            ("30m", datetime!(2026-11-23 05:00 UTC)),
            ("2h", datetime!(2026-11-23 03:30 UTC)),
            ("7d", datetime!(2026-11-16 05:30 UTC)),
            ("06:00", datetime!(2026-11-23 04:00 UTC)),
            ("6:00:01", datetime!(2026-11-23 04:00:01 UTC)),
            ("07:30", datetime!(2026-11-23 05:30 UTC)),
            ("07:31", datetime!(2026-11-22 05:31 UTC)),
            ("2026-11-23", datetime!(2026-11-22 22:00 UTC)),
            ("2026-11-23 06:00", datetime!(2026-11-23 04:00 UTC)),
            ("2026-11-23T18:00:00.25", datetime!(2026-11-23 17:00:00.25 UTC)),
            ("2026-11-23T06:00:00Z", datetime!(2026-11-23 06:00 UTC)),
            ("2026-11-23t06:00z", datetime!(2026-11-23 06:00 UTC)),
            ("2026-11-23T06:00:00.123+01:00", datetime!(2026-11-23 05:00:00.123 UTC)),
            ("2026-11-23T06:00:00 01:00", datetime!(2026-11-23 05:00 UTC)),
            ("2026-11-23T06:00-05:30", datetime!(2026-11-23 11:30 UTC)),
            ("2030-01-01", datetime!(2029-12-31 23:00 UTC)),
        ];
        let count = cases.len();
        for (text, expected) in cases {
            assert_eq!(parse(text, now, &zone), Some(expected), "{text}");
        }
        assert_eq!(count, 17);
        let mut ran = 0;
        for wrong in [
            "",
            "h",
            "2",
            "-2h",
            "2w",
            "+2h",
            "9999999999h",
            "25:00",
            "06:60",
            "06",
            "06:",
            "006:00",
            "06:00.5",
            "06:00:00.",
            "2026-13-01",
            "2026-11-23T",
            "2026-11-23T06",
            "2026-11-23T06:00+1",
            "2026-11-23T06:00+99:00",
            "23.11.2026",
            "ä",
            "2ä",
        ] {
            assert_eq!(parse(wrong, now, &zone), None, "{wrong}");
            ran += 1;
        }
        assert_eq!(ran, 22);
        assert!(read("since", "1960-01-01", now).is_err(), "before all that is counted");
        assert_eq!(read("since", "2026-11-23T06:00:00Z", now), Ok(1_795_413_600_000));
    }
}
