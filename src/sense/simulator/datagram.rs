//! The datagrams of Qlik Sense as its log appenders render them: one event, one datagram, no newline.
//!
//! Fields are joined with `;` and nothing is escaped, exactly as log4net does it: a `;` in a name shifts the fields, and readers must cope.

use std::fmt::Write as _;

/// Which generation of log appenders is installed on the simulated site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Of Butler 4 and older: only failed tasks, ten fields, no type; proxy events.
    Legacy,
    /// Of Butler 5.4: failed and aborted tasks, proxy events.
    Butler54,
    /// Of Butler 16 (success with its two slashes), proxy events with the prefix of Butler SOS.
    #[default]
    Butler16,
}

/// The name of a profile is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a profile; use butler-16, butler-5.4 or legacy")]
pub struct ProfileError(String);

impl std::str::FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        match text {
            "legacy" => Ok(Self::Legacy),
            "butler-5.4" => Ok(Self::Butler54),
            "butler-16" => Ok(Self::Butler16),
            _ => Err(ProfileError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Butler54 => "butler-5.4",
            Self::Butler16 => "butler-16",
        })
    }
}

/// What a datagram reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DatagramKind {
    /// A task failed after its last retry.
    Failed,
    /// A task is being aborted.
    Aborted,
    /// A task succeeded.
    Success,
    /// A distribute task ended, one way or the other.
    Distribute,
    /// A session or connection of a user.
    Proxy,
}

impl DatagramKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Failed, Self::Aborted, Self::Success, Self::Distribute, Self::Proxy];

    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Success => "success",
            Self::Distribute => "distribute",
            Self::Proxy => "proxy",
        }
    }

    /// The text the scheduler logs, which the appenders match.
    fn message(self) -> &'static str {
        match self {
            Self::Failed => "Max retries reached",
            Self::Aborted => "Execution State Change to Aborting",
            Self::Success => "Execution State Change to FinishedSuccess",
            Self::Distribute => "Exiting execute of Distribute task request.",
            Self::Proxy => "",
        }
    }
}

/// The values of a scheduler datagram.
#[derive(Debug, Clone, Copy)]
pub struct TaskFields<'a> {
    /// Short machine name.
    pub host: &'a str,
    /// Task name.
    pub task: &'a str,
    /// App name, empty when there is none.
    pub app: &'a str,
    /// `DIR\user`
    pub user: &'a str,
    /// Task id.
    pub task_id: &'a str,
    /// App id, empty when there is none.
    pub app_id: &'a str,
    /// Local time.
    pub date: &'a str,
    /// Execution id.
    pub execution_id: &'a str,
}

/// First field of a task datagram; `Some("")` means the form without a type, `None` that no appender of this profile matches the event.
fn task_type(profile: Profile, kind: DatagramKind) -> Option<&'static str> {
    match (profile, kind) {
        (Profile::Legacy, DatagramKind::Failed) => Some(""),
        (Profile::Butler54, DatagramKind::Failed) => Some("/scheduler-reload-failed/;"),
        (Profile::Butler54, DatagramKind::Aborted) => Some("/scheduler-reload-aborted/;"),
        (Profile::Butler16, DatagramKind::Failed) => Some("/scheduler-task-failed/;"),
        (Profile::Butler16, DatagramKind::Aborted) => Some("/scheduler-task-aborted/;"),
        (Profile::Butler16, DatagramKind::Success) => Some("/scheduler-task-success//;"),
        (Profile::Butler16, DatagramKind::Distribute) => Some("/scheduler-distribute/;"),
        _ => None,
    }
}

/// A scheduler datagram, or `None` when no appender of the profile sends this kind.
pub fn task_datagram(profile: Profile, kind: DatagramKind, fields: &TaskFields<'_>) -> Option<String> {
    let TaskFields { host, task, app, user, task_id, app_id, date, execution_id } = fields;
    let first = task_type(profile, kind)?;
    let message = kind.message();
    Some(format!("{first}{host};{task};{app};{user};{task_id};{app_id};{date};INFO;{execution_id};{message}"))
}

/// What a user does at the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyCommand {
    /// A session begins.
    StartSession,
    /// A connection to an app opens.
    OpenConnection,
    /// It closes.
    CloseConnection,
    /// The session ends.
    StopSession,
}

impl ProxyCommand {
    /// `%property{Command}`
    pub fn word(self) -> &'static str {
        match self {
            Self::StartSession => "Start session",
            Self::OpenConnection => "Open connection",
            Self::CloseConnection => "Close connection",
            Self::StopSession => "Stop session",
        }
    }

    fn is_session(self) -> bool {
        matches!(self, Self::StartSession | Self::StopSession)
    }
}

/// The values of a proxy datagram.
#[derive(Debug, Clone, Copy)]
pub struct ProxyFields<'a> {
    /// Short machine name.
    pub host: &'a str,
    /// User directory.
    pub directory: &'a str,
    /// User id.
    pub user: &'a str,
    /// User agent of the browser.
    pub agent: &'a str,
    /// The app that is opened or closed.
    pub app_id: &'a str,
    /// The session.
    pub session: &'a str,
}

/// A proxy datagram: eight fields. The values of origin and context are plausible, not recorded ones.
pub fn proxy_datagram(profile: Profile, command: ProxyCommand, fields: &ProxyFields<'_>) -> String {
    let ProxyFields { host, directory, user, agent, app_id, session } = fields;
    let prefix = if profile == Profile::Butler16 { "/qseow-" } else { "/" };
    let (kind, origin) = if command.is_session() { ("session", "Not available") } else { ("connection", "AppAccess") };
    let word = command.word();
    let mut text = format!("{prefix}proxy-{kind}/;{host};{word};{directory};{user};{origin};");
    // Writing to a String cannot fail.
    let _ = match command {
        ProxyCommand::StartSession => {
            write!(text, "/hub/;Start session for user '{directory}\\{user}' - UserAgent: '{agent}'")
        }
        ProxyCommand::StopSession => {
            write!(text, "/hub/;Stop session for user '{directory}\\{user}' - session {session}")
        }
        ProxyCommand::OpenConnection => {
            write!(text, "/app/{app_id}?reloadUri=/hub;connection Opened for session {session}")
        }
        ProxyCommand::CloseConnection => {
            write!(text, "/app/{app_id}?reloadUri=/hub;connection Closed for session {session}")
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: TaskFields<'_> = TaskFields {
        host: "sense-1",
        task: "a; b",
        app: "b",
        user: r"LAB\goran",
        task_id: "T",
        app_id: "A",
        date: "D",
        execution_id: "E",
    };

    #[test]
    fn each_profile_sends_what_its_appenders_match() {
        let cases = [
            (Profile::Legacy, DatagramKind::Failed, Some("")),
            (Profile::Legacy, DatagramKind::Aborted, None),
            (Profile::Butler54, DatagramKind::Failed, Some("/scheduler-reload-failed/;")),
            (Profile::Butler54, DatagramKind::Success, None),
            (Profile::Butler16, DatagramKind::Success, Some("/scheduler-task-success//;")),
            (Profile::Butler16, DatagramKind::Distribute, Some("/scheduler-distribute/;")),
        ];
        assert_eq!(cases.len(), 6);
        for (profile, kind, first) in cases {
            let expected =
                first.map(|first| format!(r"{first}sense-1;a; b;b;LAB\goran;T;A;D;INFO;E;{}", kind.message()));
            assert_eq!(task_datagram(profile, kind, &FIELDS), expected, "{profile} {kind:?}");
        }
    }

    #[test]
    fn proxy_events_have_eight_fields_before_the_message_s_own_semicolons() {
        let fields = ProxyFields {
            host: "sense-1",
            directory: "LAB",
            user: "goran",
            agent: "Mozilla/5.0 (X11; 'kiosk')",
            app_id: "A",
            session: "S",
        };
        let text = proxy_datagram(Profile::Butler54, ProxyCommand::StartSession, &fields);
        let parts: Vec<&str> = text.splitn(8, ';').collect();
        assert_eq!(parts.len(), 8);
        assert_eq!(&parts[..4], ["/proxy-session/", "sense-1", "Start session", "LAB"]);
        assert!(parts[7].starts_with(r"Start session for user 'LAB\goran'") && parts[7].contains("X11; 'kiosk'"));
        let open = proxy_datagram(Profile::Butler16, ProxyCommand::OpenConnection, &fields);
        assert!(open.starts_with("/qseow-proxy-connection/;sense-1;Open connection;LAB;goran;"), "{open}");
        assert!(open.contains("connection Opened for session"));
    }

    #[test]
    fn profiles_are_named_both_ways() {
        for profile in [Profile::Legacy, Profile::Butler54, Profile::Butler16] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("butler".parse::<Profile>().is_err());
    }
}
