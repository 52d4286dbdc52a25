//! The site's own clock: runs as fast as asked, starts at the time of the machine.
//!
//! Everything inside the site counts milliseconds since its start ([`Moment`]); only here they become dates.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
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

/// `20260301T073303.508+0100`, as the engine begins the lines of a script log.
const SCRIPT_LOG_DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[year][month][day]T[hour][minute][second].[subsecond digits:3][offset_hour sign:mandatory][offset_minute]"
);

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

    /// A calendar whose dates are so many milliseconds later, or earlier.
    pub fn skewed(self, millis: i64) -> Self {
        Self(self.0.checked_add(time::Duration::milliseconds(millis)).unwrap_or(self.0))
    }

    /// The moment of a date as QRS writes it; dates before the start are moment 0.
    pub fn moment(self, date: &str) -> Option<Moment> {
        let date = OffsetDateTime::parse(date, &time::format_description::well_known::Rfc3339).ok()?;
        Some(Moment::try_from((date - self.0).whole_milliseconds()).unwrap_or(0))
    }

    /// As the engine writes it in script logs: local time of this machine with its offset.
    pub fn script_log(self, moment: Moment) -> String {
        let time = self.at(moment);
        let offset = UtcOffset::local_offset_at(time).unwrap_or(UtcOffset::UTC);
        time.to_offset(offset).format(SCRIPT_LOG_DATE).unwrap_or_default()
    }

    /// As log4net writes it: local time of this machine, without zone.
    pub fn log(self, moment: Moment) -> String {
        let time = self.at(moment);
        let offset = UtcOffset::local_offset_at(time).unwrap_or(UtcOffset::UTC);
        time.to_offset(offset).format(LOG_DATE).unwrap_or_default()
    }
}

/// Where the clock stood at an instant, and how fast it goes since.
#[derive(Debug, Clone, Copy)]
struct Course {
    instant: Instant,
    moment: Moment,
    speed: f64,
}

/// Tells the moment. It never goes back.
#[derive(Debug)]
pub struct Clock(Mutex<Course>);

impl Clock {
    /// Starts now, `speed` times as fast as the wall clock.
    pub fn start(speed: f64) -> Self {
        Self(Mutex::new(Course { instant: Instant::now(), moment: 0, speed }))
    }

    /// The moment.
    pub fn now(&self) -> Moment {
        self.0.lock().now()
    }

    /// How fast it goes.
    pub fn speed(&self) -> f64 {
        self.0.lock().speed
    }

    /// Lets it go faster or slower from now on.
    pub fn set_speed(&self, speed: f64) {
        let mut course = self.0.lock();
        *course = Course { instant: Instant::now(), moment: course.now(), speed };
    }

    /// Puts it forward.
    pub fn put_forward(&self, by: Moment) {
        let mut course = self.0.lock();
        *course = Course { instant: Instant::now(), moment: course.now().saturating_add(by), speed: course.speed };
    }

    /// When, on tokio's clock, a moment comes.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.0.lock().when(moment)
    }
}

impl Course {
    fn now(&self) -> Moment {
        self.moment.saturating_add((self.instant.elapsed().as_secs_f64() * self.speed * 1000.0) as Moment)
    }

    fn when(&self, moment: Moment) -> Instant {
        // One millisecond more, so that rounding never wakes the sleeper just before its moment.
        let left = moment.saturating_add(1).saturating_sub(self.moment);
        let seconds = (left as f64 / 1000.0 / self.speed).min(86_400.0 * 365.0);
        self.instant + Duration::from_secs_f64(seconds)
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
    fn dates_are_read_back_and_skewed() {
        let calendar = Calendar::new(SystemTime::UNIX_EPOCH);
        assert_eq!(calendar.moment("1970-01-01T00:00:01.508Z"), Some(1_508));
        assert_eq!((calendar.moment("1960-01-01T00:00:00Z"), calendar.moment("soon")), (Some(0), None));
        assert_eq!(calendar.skewed(-1_000).qrs(1_508), "1970-01-01T00:00:00.508Z");
        assert_eq!(calendar.script_log(0).len(), 24);
    }

    #[test]
    fn a_clock_put_forward_or_made_faster_goes_on_from_where_it_stands() {
        let clock = Clock::start(1.0);
        clock.put_forward(5_000);
        clock.set_speed(100.0);
        let now = clock.now();
        assert!((5_000..60_000).contains(&now), "{now}");
        let next = clock.instant(now + 10_000);
        assert!(next <= Instant::now() + Duration::from_millis(150));
    }

    #[test]
    fn a_fast_clock_reaches_its_moment_early() {
        let clock = Clock::start(60.0);
        let wait = clock.instant(60_000) - clock.0.lock().instant;
        assert!((Duration::from_millis(1_000)..Duration::from_millis(1_001)).contains(&wait), "{wait:?}");
        // At that instant the moment has come, whatever the rounding.
        let moment = (wait.as_secs_f64() * 60.0 * 1000.0) as Moment;
        assert!((60_000..60_010).contains(&moment), "{moment}");
    }
}
