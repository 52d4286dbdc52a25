//! Files of others, written in every way: they stay as they are but for what is ours, and twice is the same as once.

use proptest::prelude::*;

use super::*;

fn target(text: &str) -> HostPort {
    text.parse().unwrap()
}

fn merged(before: &str) -> Merged {
    merge(Service::Scheduler, &target("10.1.2.3:9998"), Some(before)).unwrap()
}

fn deeds(merged: &Merged) -> Vec<Deed> {
    merged.deeds.iter().map(|(deed, _)| *deed).collect()
}

#[test]
fn where_there_is_nothing_the_shipped_file_comes_with_the_address() {
    for (service, port, count) in [(Service::Scheduler, "9998", 6), (Service::Proxy, "9997", 3)] {
        let shipped = service.shipped().0;
        for before in [None, Some(""), Some("\u{feff}\r\n ")] {
            let same = merge(service, &target(&format!("127.0.0.1:{port}")), before).unwrap();
            assert_eq!((same.text.as_str(), same.deeds.len()), (shipped, count));
        }
        let other = merge(service, &target("[fd00::1]:7"), None).unwrap();
        assert!(!other.text.contains(r#"value="127.0.0.1""#) && !other.text.contains(&format!("value=\"{port}\"")));
        assert_eq!(
            other.text.matches(r#"name="remoteAddress" value="fd00::1""#).count(),
            shipped.matches("remoteAddress\" ").count()
        );
        assert_eq!(other.text.matches(r#"name="remotePort" value="7""#).count(), shipped.matches("remotePort").count());
        let again = merge(service, &target("[fd00::1]:7"), Some(&other.text)).unwrap();
        assert_eq!((again.text.as_str(), again.is_changed()), (other.text.as_str(), false));
    }
}

#[test]
fn what_is_there_already_is_told() {
    use Deed::{Added, Replaced, Unchanged};
    let first = merged("<configuration>\n</configuration>");
    assert_eq!(deeds(&first), [Added; 6]);
    let moved = merge(Service::Scheduler, &target("other:9998"), Some(&first.text)).unwrap();
    assert_eq!(deeds(&moved), [Replaced, Replaced, Replaced, Replaced, Unchanged, Unchanged]);
    assert_eq!(moved.text.replace("other", "10.1.2.3"), first.text);
    let half = first.text.replace("    <appender-ref ref=\"SenseButlerTaskAborted\" />\n", "");
    let whole = merged(&half);
    assert_eq!(deeds(&whole), [Unchanged, Unchanged, Unchanged, Unchanged, Added, Unchanged]);
    let butler = r#"<configuration><appender name="B" type="log4net.Appender.UdpAppender"><param name="remoteAddress" value="10.1.2.3"/><param name="RemotePort" value="9998"/></appender><appender name="F" type="log4net.Appender.UdpAppender"><param name="remoteAddress" value="10.1.2.3"/></appender></configuration>"#;
    assert_eq!(merged(butler).also, ["B"]);
}

#[test]
fn places_are_found_however_the_file_is_written() {
    let cases = [
        ("<configuration/>", "<configuration>\n\n  <appender name=\"SenseButlerTaskFailed\"", "\n</configuration>"),
        ("<configuration></configuration>", "<configuration>\n\n  <appender ", "</configuration>"),
        (
            "<?xml version=\"1.0\"?>\r\n<configuration >\r\n</configuration >\r\n",
            "<configuration >\r\n\r\n  <appender ",
            "</logger>\r\n</configuration >\r\n",
        ),
        (
            "<configuration>\n  <logger name=\"System.Scheduler.Scheduler.Slave.Tasks.ReloadTask\"/>\n</configuration>",
            "ReloadTask\">\n    <appender-ref ref=\"SenseButlerDistribute\" />\n  </logger>",
            "</configuration>",
        ),
        (
            "<configuration><logger name='System.Scheduler.Scheduler.Slave.Tasks.ReloadTask'><level value=\"ALL\"/></logger></configuration>",
            "<level value=\"ALL\"/>\n    <appender-ref ref=\"SenseButlerDistribute\" /></logger>",
            "</configuration>",
        ),
        (
            "<configuration><!-- <appender name=\"SenseButlerTaskFailed\"/> --></configuration><!-- behind -->",
            "--></configuration><!-- behind -->",
            "<!-- behind -->",
        ),
    ];
    let mut ran = 0;
    for (before, part, end) in cases {
        let merged = merged(before);
        if ran < 5 {
            assert!(merged.text.contains(part), "{before}\n{}", merged.text);
        }
        assert!(merged.text.ends_with(end), "{before}\n{}", merged.text);
        assert!(!merged.text.replace("\r\n", "").contains('\n') || !before.contains("\r\n"), "{before}");
        ran += 1;
    }
    assert_eq!(ran, 6);
}

#[test]
fn what_is_not_understood_is_left_alone() {
    let ours = merged("<configuration/>").text;
    let twice = ours.replace("</configuration>", "<appender name=\"SenseButlerDistribute\"/></configuration>");
    let inside = "<configuration><root><appender name=\"SenseButlerDistribute\"/></root></configuration>";
    let large = format!("<configuration><!-- {} --></configuration>", "x".repeat(1 << 20));
    let cases = [
        ("<configuration>", "no XML"),
        ("no XML", "no XML"),
        ("<configuration><a></b></configuration>", "no XML"),
        ("<!DOCTYPE configuration [<!ENTITY a \"b\">]><configuration>&a;</configuration>", "no XML"),
        ("<log4net></log4net>", "`log4net`"),
        ("<configuration xmlns=\"x\"></configuration>", "of the namespace x"),
        (twice.as_str(), "more than once"),
        (inside, "not directly below"),
        (large.as_str(), "bytes"),
    ];
    let mut ran = 0;
    for (before, word) in cases {
        let error = merge(Service::Scheduler, &target("h:1"), Some(before)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        ran += 1;
    }
    assert_eq!(ran, 9);
}

/// Things that stand below `configuration` in files of others.
fn piece() -> impl Strategy<Value = String> {
    let name = "[A-Za-z.äß]{1,12}";
    let reference = "[A-Z][a-z]{0,6}";
    let logger = prop_oneof![
        Just("System.Scheduler.Scheduler.Master.Task.TaskSession".to_owned()),
        Just("System.Scheduler.Scheduler.Slave.Tasks.ReloadTask".to_owned()),
        name.prop_map(|name| format!("Other.{name}")),
    ];
    let blank = prop_oneof![Just(""), Just(" "), Just("\n\t"), Just("\r\n  ")];
    prop_oneof![
        (name, blank.clone()).prop_map(|(name, blank)| format!("<appender name=\"{name}\"{blank}>{blank}<param name='x' value=\"&lt;ü\"/>{blank}</appender{blank}>")),
        (logger.clone(), blank.clone()).prop_map(|(name, blank)| format!("<logger{blank} name='{name}'{blank}/>")),
        (logger, reference, blank.clone()).prop_map(|(name, reference, blank)| {
            format!("<logger name=\"{name}\">{blank}<level value='ALL'/>{blank}<appender-ref{blank} ref=\"{reference}\"/>{blank}</logger>")
        }),
        "[ a-z<>&/]{0,20}".prop_map(|text| format!("<!-- {} </configuration> -->", text.replace("--", ""))),
        Just("<![CDATA[ </logger> ]]>".to_owned()),
        Just("<?x </configuration>?>".to_owned()),
        blank.prop_map(str::to_owned),
        Just("text &amp; more".to_owned()),
        // One of ours, with another address, by hand.
        Just("<appender name=\"SenseButlerTaskFailed\" type=\"x\" />".to_owned()),
    ]
}

fn file() -> impl Strategy<Value = String> {
    let head = prop_oneof![
        Just(""),
        Just("\u{feff}"),
        Just("<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<!-- a -->"),
        Just("\n")
    ];
    let tail = prop_oneof![Just(""), Just("\n"), Just("\r\n<!-- </configuration> -->\r\n")];
    (head, proptest::collection::vec(piece(), 0..8), tail).prop_map(|(head, pieces, tail)| {
        let mut seen = false;
        let once = |piece: &String| !(piece.contains("SenseButlerTaskFailed") && std::mem::replace(&mut seen, true));
        let body: String = pieces.into_iter().filter(once).collect();
        format!("{head}<configuration>{body}</configuration>{tail}")
    })
}

/// The text without what is ours: our appenders, our references, loggers that have nothing but ours, and all white space.
fn foreign(text: &str) -> String {
    let document = Document::parse(text).unwrap();
    let mut left = text.to_owned();
    let mut ours: Vec<_> = document
        .descendants()
        .filter(|node| {
            let is = |name: &str| node.attribute(name).is_some_and(|name| name.starts_with("SenseButler"));
            node.has_tag_name("appender") && is("name") || node.has_tag_name("appender-ref") && is("ref")
        })
        .map(|node| node.range())
        .collect();
    ours.sort_by_key(|range| std::cmp::Reverse(range.start));
    for range in ours {
        left.replace_range(range, "");
    }
    left.retain(|c| !c.is_whitespace());
    // An empty element is written in two ways.
    for name in
        ["System.Scheduler.Scheduler.Master.Task.TaskSession", "System.Scheduler.Scheduler.Slave.Tasks.ReloadTask"]
    {
        for quote in ['"', '\''] {
            let tag = format!("<loggername={quote}{name}{quote}");
            left = left.replace(&format!("{tag}></logger>"), &format!("{tag}/>"));
            left = left.replace(&format!("{tag}/>"), "");
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn what_is_foreign_stays_and_twice_is_once(before in file()) {
        let once = merged(&before);
        prop_assert_eq!(foreign(&once.text), foreign(&before), "{}", once.text);
        prop_assert!(once.is_changed());
        let twice = merged(&once.text);
        prop_assert_eq!(&twice.text, &once.text);
        prop_assert!(!twice.is_changed());
        // Every element of others is there to the byte, in its order.
        let document = Document::parse(&before).unwrap();
        let mut rest = once.text.as_str();
        for node in document.root_element().children() {
            let text = before.get(node.range()).unwrap();
            let is_ours = node.attribute("name").is_some_and(|name| name.starts_with("SenseButler"));
            let is_shared = node.attribute("name").is_some_and(|name| name.starts_with("System.Scheduler"));
            if !is_ours && !is_shared && !text.trim().is_empty() {
                let found = rest.split_once(text.trim());
                prop_assert!(found.is_some(), "{} is not in\n{}", text, rest);
                rest = found.unwrap().1;
            }
        }
    }
}
