//! The site's own clock: runs as fast as asked, starts at the time of the machine.
//!
//! Everything inside the site counts milliseconds since its start ([`Moment`]); only here they become dates.

use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};
use tokio::time::Instant;

/// Milliseconds of the site's clock since its start.
pub type Moment = u64;

/// `2026-03-01T07:33:03.508Z`, as QRS writes dates.
const QRS_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// `2026-03-01 07:33:03,508`, log4net's `%date`.
const LOG_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second],[subsecond digits:3]");

/// QRS's word for "no date".
pub const NULL_DATE: &str = "1753-01-01T00:00:00.000Z";
/// QRS's word for "never".
pub const NEVER: &str = "9999-01-01T00:00:00.000Z";

/// When the site started, on the calendar.
#[derive(Debug, Clone, Copy)]
pub struct Calendar(OffsetDateTime);

impl Calendar {
    /// A site that started at this time.
    pub fn new(start: SystemTime) -> Self {
        Self(start.into())
    }

    fn at(self, moment: Moment) -> OffsetDateTime {
        i64::try_from(moment)
            .ok()
            .and_then(|millis| self.0.checked_add(time::Duration::milliseconds(millis)))
            .unwrap_or(self.0)
    }

    /// As QRS writes it, UTC.
    pub fn qrs(self, moment: Moment) -> String {
        self.at(moment).to_offset(UtcOffset::UTC).format(QRS_DATE).unwrap_or_else(|_| NULL_DATE.to_owned())
    }

    /// As log4net writes it: local time of this machine, without zone.
    pub fn log(self, moment: Moment) -> String {
        let time = self.at(moment);
        let offset = UtcOffset::local_offset_at(time).unwrap_or(UtcOffset::UTC);
        time.to_offset(offset).format(LOG_DATE).unwrap_or_default()
    }
}

/// Tells the moment.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    speed: f64,
}

impl Clock {
    /// Starts now, `speed` times as fast as the wall clock.
    pub fn start(speed: f64) -> Self {
        Self { start: Instant::now(), speed }
    }

    /// The moment.
    pub fn now(&self) -> Moment {
        (self.start.elapsed().as_secs_f64() * self.speed * 1000.0) as Moment
    }

    /// When, on tokio's clock, a moment comes.
    pub fn instant(&self, moment: Moment) -> Instant {
        // One millisecond more, so that rounding never wakes the sleeper just before its moment.
        let seconds = (moment.saturating_add(1) as f64 / 1000.0 / self.speed).min(86_400.0 * 365.0);
        self.start + Duration::from_secs_f64(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_look_like_qlik_s() {
        let calendar = Calendar::new(SystemTime::UNIX_EPOCH);
        assert_eq!(calendar.qrs(1_508), "1970-01-01T00:00:01.508Z");
        let log = calendar.log(1_508);
        assert_eq!(log.len(), 23, "{log}");
        assert!(log.ends_with("01,508"), "{log}");
    }

    #[test]
    fn a_fast_clock_reaches_its_moment_early() {
        let clock = Clock::start(60.0);
        let wait = clock.instant(60_000) - clock.start;
        assert!((Duration::from_millis(1_000)..Duration::from_millis(1_001)).contains(&wait), "{wait:?}");
        // At that instant the moment has come, whatever the rounding.
        let moment = (wait.as_secs_f64() * 60.0 * 1000.0) as Moment;
        assert!((60_000..60_010).contains(&moment), "{moment}");
    }
}
