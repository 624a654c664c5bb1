//! Local time as the C library prints it, in English as with `LC_ALL=C`.

struct Local {
    year: i64,
    month: usize,
    day: i32,
    weekday: usize,
    hour: i32,
    minute: i32,
    second: i32,
    zone: String,
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Local {
    fn at(seconds: u64) -> Option<Local> {
        let when = libc::time_t::try_from(seconds).ok()?;
        // SAFETY: an all-zero `tm` is a valid value of a plain C struct of integers and a pointer.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live, properly aligned values of the right type; the call
        // writes to `tm` only and uses no shared buffer.
        let done = unsafe { libc::localtime_r(&when, &mut tm) };
        if done.is_null() {
            return None;
        }
        let zone = match tm.tm_zone.is_null() {
            true => String::new(),
            // SAFETY: the C library sets `tm_zone` to a string with an end that lives as long as the process keeps
            // its time zone, which nothing here changes.
            false => unsafe { std::ffi::CStr::from_ptr(tm.tm_zone) }.to_string_lossy().into_owned(),
        };
        Some(Local {
            year: i64::from(tm.tm_year) + 1900,
            month: usize::try_from(tm.tm_mon).ok()?,
            day: tm.tm_mday,
            weekday: usize::try_from(tm.tm_wday).ok()?,
            hour: tm.tm_hour,
            minute: tm.tm_min,
            second: tm.tm_sec,
            zone,
        })
    }

    fn day_name(&self) -> &'static str {
        DAYS.get(self.weekday).copied().unwrap_or("?")
    }

    fn month_name(&self) -> &'static str {
        MONTHS.get(self.month).copied().unwrap_or("?")
    }
}

fn or_number(seconds: u64, print: impl Fn(&Local) -> String) -> String {
    Local::at(seconds).map_or_else(|| seconds.to_string(), |t| print(&t))
}

/// `Sun Nov 22 19:21:02 2026`, as `ctime` without its line end.
pub fn ctime(seconds: u64) -> String {
    or_number(seconds, |t| {
        format!(
            "{} {} {:2} {:02}:{:02}:{:02} {}",
            t.day_name(),
            t.month_name(),
            t.day,
            t.hour,
            t.minute,
            t.second,
            t.year
        )
    })
}

/// `Sun Nov 22 19:21:02 UTC 2026`, as `date` prints it.
pub fn date(seconds: u64) -> String {
    or_number(seconds, |t| {
        let (day, month) = (t.day_name(), t.month_name());
        format!("{day} {month} {:2} {:02}:{:02}:{:02} {} {}", t.day, t.hour, t.minute, t.second, t.zone, t.year)
    })
}

/// `Sun Nov 22 19:21 2026`, hours padded with a blank.
pub fn minute(seconds: u64) -> String {
    or_number(seconds, |t| {
        let (day, month) = (t.day_name(), t.month_name());
        format!("{day} {month} {:2} {:2}:{:02} {}", t.day, t.hour, t.minute, t.year)
    })
}

/// `Sun Nov 22 19:21:02 2026`, hours padded with a blank.
pub fn second(seconds: u64) -> String {
    or_number(seconds, |t| {
        let (day, month) = (t.day_name(), t.month_name());
        format!("{day} {month} {:2} {:2}:{:02}:{:02} {}", t.day, t.hour, t.minute, t.second, t.year)
    })
}

/// `Sun Nov 22 19:21 2026`, as of holds.
pub fn held(seconds: u64) -> String {
    or_number(seconds, |t| {
        let (day, month) = (t.day_name(), t.month_name());
        format!("{day} {month} {:2} {:02}:{:02} {}", t.day, t.hour, t.minute, t.year)
    })
}

/// `2026-11-22.19:21:02`, as in histories.
pub fn history(seconds: u64) -> String {
    or_number(seconds, |t| {
        format!("{}-{:02}-{:02}.{:02}:{:02}:{:02}", t.year, t.month + 1, t.day, t.hour, t.minute, t.second)
    })
}

/// `Nov 22 2026 19:21:02`, as in events.
pub fn event(seconds: u64) -> String {
    or_number(seconds, |t| {
        format!("{} {:02} {} {:02}:{:02}:{:02}", t.month_name(), t.day, t.year, t.hour, t.minute, t.second)
    })
}

/// A duration: `00:00:04`, or `3 days 00:00:04`.
pub fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days} days {clock}") } else { clock }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
