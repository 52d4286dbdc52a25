//! What the parser promises, on samples and on anything at all.

use proptest::prelude::*;

use super::*;

const GUIDS: &str = "0000aaaa-0000-4000-8000-000000000001;a1b2c3d4-0000-4000-8000-00000000a001";
const TAIL: &str = "2026-05-04 10:00:01,234;INFO;ec000000-0000-4000-8000-000000000001";

fn task(text: &str, generation: Generation) -> Result<TaskEvent, Reject> {
    parse_task(text.as_bytes(), generation, SystemTime::UNIX_EPOCH)
}

fn head(text: &str) -> Result<TaskEvent, Reject> {
    task(text, Generation::Head)
}

/// What a log appender would send for an event.
fn render(word: &str, event: &TaskEvent) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    [
        word.to_owned(),
        event.host.clone(),
        text(&event.task_name),
        text(&event.app_name),
        text(&event.user),
        text(&event.task_id),
        text(&event.app_id),
        text(&event.log_time),
        text(&event.log_level),
        text(&event.execution_id),
        text(&event.message),
    ]
    .join(";")
}

#[test]
fn semicolons_in_names_and_messages_lose_nothing() {
    let text =
        format!(r"/scheduler-task-failed/;h;Load; sales;Sales app;LAB\anna;{GUIDS};{TAIL};gave up; after 3; tries");
    for generation in [Generation::Head, Generation::V5_4] {
        let event = task(&text, generation).unwrap();
        assert_eq!(event.task_name.as_deref(), Some("Load; sales"));
        assert_eq!(event.app_name.as_deref(), Some("Sales app"));
        assert_eq!(event.user.as_deref(), Some(r"LAB\anna"));
        assert_eq!(event.message.as_deref(), Some("gave up; after 3; tries"));
        assert!(!event.ambiguous);
    }
}

#[test]
fn a_forged_tail_in_a_name_is_not_believed() {
    let forged = format!(r"x;LAB\eve;{GUIDS};{TAIL};Max retries reached");
    let event = head(&format!(r"/scheduler-task-failed/;h;{forged};App;LAB\anna;{GUIDS};{TAIL};m")).unwrap();
    assert_eq!(event.message.as_deref(), Some("m"));
    assert_eq!(event.user.as_deref(), Some(r"LAB\anna"));
    assert!(event.ambiguous);
}

#[test]
fn ids_may_be_absent_the_way_log4net_writes_it() {
    for ids in [";", "(null);(null)", "0000aaaa-0000-4000-8000-000000000001;(null)"] {
        let event = head(&format!("/scheduler-distribute/;h;Distribute;;u;{ids};{TAIL};m")).unwrap();
        assert_eq!(event.kind, TaskEventKind::Distributed);
        assert_eq!(event.app_name.as_deref(), Some(""));
    }
    let wrong = "/scheduler-task-failed/;h;t;a;u;bad;;2026-05-04 10:00:01,234;INFO;;m";
    assert_eq!(head(wrong), Err(Reject::BadId));
    assert_eq!(task(wrong, Generation::V5_4).unwrap().task_id.as_deref(), Some("bad"));
}

#[test]
fn legacy_datagrams_have_no_type() {
    let event = head(&format!(r"h;t;a;LAB\\u;{GUIDS};{TAIL};Max retries reached")).unwrap();
    assert_eq!((event.kind, event.host.as_str()), (TaskEventKind::Failed, "h"));
    assert_eq!(event.user.as_deref(), Some(r"LAB\u"));
    for text in ["hello", "a;b;c;d;e;f;g;h;i;j", "GET / HTTP/1.1\r\n\r\n"] {
        for generation in [Generation::Head, Generation::V5_4] {
            assert_eq!(task(text, generation), Err(Reject::Malformed), "{text}");
        }
    }
}

#[test]
fn the_engine_has_nine_fields() {
    let event = head("/engine-reload-failed/;h;app;s-1;LAB;anna;2026-05-04 10:00:01,234;ERROR;it; failed").unwrap();
    assert_eq!(event.kind, TaskEventKind::EngineReloadFailed);
    assert_eq!(event.user.as_deref(), Some(r"LAB\anna"));
    assert_eq!(event.message.as_deref(), Some("it; failed"));
    assert_eq!(head("/engine-reload-failed/;h;app;s-1;LAB;anna;2026-05-04 10:00:01,234;ERROR"), Err(Reject::Malformed));
}

#[test]
fn nothing_and_the_unknown_are_refused_by_name() {
    assert_eq!(head(""), Err(Reject::Empty));
    assert_eq!(head("\r\n"), Err(Reject::Empty));
    assert_eq!(head(&format!("/scheduler-unknown/;h;t;a;u;{GUIDS};{TAIL};m")), Err(Reject::UnknownType));
    assert_eq!(head("/scheduler-task-failed/;h;t;a;u"), Err(Reject::Malformed));
    let short = task("/scheduler-task-failed/;h;t;a;u", Generation::V5_4).unwrap();
    assert_eq!((short.app_name.as_deref(), short.task_id), (Some("a"), None));
}

#[test]
fn an_utf16_datagram_is_read() {
    let text = format!("/scheduler-task-failed/;h;Ladda 売上;a;u;{GUIDS};{TAIL};m");
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let event = parse_task(&bytes, Generation::Head, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(event.task_name.as_deref(), Some("Ladda 売上"));
}

#[test]
fn session_commands_are_exact_and_fields_may_be_missing() {
    let session = |text: &str| parse_session(text.as_bytes(), Generation::Head, SystemTime::UNIX_EPOCH);
    let event = session("/qseow-proxy-session/;p;Stop session;LAB;anna;o;/hub/;agent; 'x'").unwrap();
    assert_eq!(event.kind, SessionEventKind::SessionStopped);
    assert_eq!(event.message.as_deref(), Some("agent; 'x'"));
    assert_eq!(session("/x/;p;Open connection;LAB").unwrap().user, None);
    assert_eq!(session("/proxy-session/;p;start session;LAB;anna;;;"), Err(Reject::UnknownCommand));
    assert_eq!(session("/proxy-session/;p"), Err(Reject::Malformed));
    assert_eq!(session(""), Err(Reject::Empty));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for generation in [Generation::Head, Generation::V5_4] {
            let _ = parse_task(&bytes, generation, SystemTime::UNIX_EPOCH);
            let _ = parse_session(&bytes, generation, SystemTime::UNIX_EPOCH);
        }
    }

    #[test]
    fn any_fields_behind_a_known_type_are_survived(fields in proptest::collection::vec("(\\PC{0,8}|\\(null\\)|INFO|0000aaaa-0000-4000-8000-000000000001|2026-05-04 10:00:01,234)", 0..24)) {
        let text = format!("/scheduler-task-failed/;{}", fields.join(";"));
        let _ = head(&text);
        let _ = task(&text, Generation::V5_4);
    }

    #[test]
    fn what_is_rendered_is_read_again(
        host in "[a-zA-Z0-9-]{1,15}",
        task_name in "[^;\\p{C}]{0,40}",
        app_name in "[^;\\p{C}]{0,40}",
        user in "[A-Z]{1,8}\\\\[a-zåäö.]{1,12}",
        message in "[^\\p{C}]{0,80}",
    ) {
        let event = TaskEvent {
            kind: TaskEventKind::Aborted,
            host,
            task_name: Some(task_name),
            app_name: Some(app_name),
            user: Some(user),
            task_id: Some("0000aaaa-0000-4000-8000-000000000001".into()),
            app_id: Some(String::new()),
            log_time: Some("2026-05-04 10:00:01,234".into()),
            log_level: Some("WARN".into()),
            execution_id: Some("ec000000-0000-4000-8000-000000000001".into()),
            message: Some(message),
            received: SystemTime::UNIX_EPOCH,
            ambiguous: false,
            origin: crate::sense::event::Origin::Datagram,
        };
        prop_assert_eq!(head(&render("/scheduler-task-aborted/", &event)), Ok(event));
    }

    /// With `;` in a name nothing outside the names is ever lost, and the two names together are what was sent.
    #[test]
    fn semicolons_in_names_never_touch_other_fields(task_name in "[a-c; ]{0,12}", app_name in "[a-c; ]{0,12}", message in "[a-z; ]{0,20}") {
        let text = format!(r"/scheduler-task-failed/;h;{task_name};{app_name};LAB\anna;{GUIDS};{TAIL};{message}");
        let event = head(&text).unwrap();
        prop_assert_eq!(event.user.as_deref(), Some(r"LAB\anna"));
        prop_assert_eq!(event.message.as_deref(), Some(message.as_str()));
        prop_assert_eq!(
            format!("{};{}", event.task_name.unwrap(), event.app_name.unwrap()),
            format!("{task_name};{app_name}")
        );
    }
}
