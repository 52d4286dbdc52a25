//! Codes about Qlik Sense: its events, its repository service, starts of tasks.

use super::{Group, error, warning};

pub(super) const SENSE: &[Group] = &[
    Group {
        title: "Events of Qlik Sense (UDP)",
        entries: &[
            warning(
                "udp_ignored",
                "a datagram is not one of those the shipped log appenders send; `reason` and `beginning` show it",
                "compare the node's `LocalLogConfig.xml` with [the shipped one](log-appenders.md), or look who else sends to this port",
            ),
            warning(
                "udp_dropped",
                "datagrams were dropped unread; `reason`: `too_large`, `source` (its sender is not in `allowedSources`), `queue_full`",
                "as the line says: raise `maxMessageSize` or `queueMaxBytes`, or add the sender",
            ),
            warning(
                "udp_dropped_by_system",
                "the kernel dropped datagrams because its receive buffer was full",
                "[give it more](operations.md#buffers-for-bursts)",
            ),
            warning(
                "receive_buffer_small",
                "the system grants a smaller receive buffer than the program asks for",
                "[give it more](operations.md#buffers-for-bursts)",
            ),
            warning("udp_socket_failed", "receiving failed", "look whether the network of this machine is well"),
            warning(
                "udp_source_unresolved",
                "a name in `udpServerConfig.allowedSources` stands for no address",
                "correct it, or write the address",
            ),
            warning(
                "appenders_silent",
                "tasks end in Qlik Sense, and no datagram has come for hours",
                "[look at the log appenders](troubleshooting.md#no-events-arrive)",
            ),
            warning(
                "forward_failed",
                "a datagram did not go on to another program (`forwardTo`)",
                "look whether that program runs, or take it out",
            ),
            warning(
                "forward_full",
                "more datagrams came than could be sent on",
                "look whether the network to that program is well",
            ),
            warning(
                "forward_name_unresolved",
                "a name in `forwardTo` stands for no address",
                "correct it, or write the address",
            ),
            error(
                "forward_to_itself",
                "`forwardTo` names a port of this program",
                "name the port of the other program ([beside Butler](beside-butler.md))",
            ),
            warning(
                "event_not_published",
                "an event was received and the broker did not take it",
                "the error says why; `sense-butler doctor` looks at the broker",
            ),
            warning(
                "events_lost_at_stop",
                "the program stopped while the broker took no more messages",
                "look in the QMC what ended then",
            ),
            warning(
                "events_unconfirmed_at_stop",
                "the program stopped before the broker confirmed the last events",
                "look in the QMC what ended then",
            ),
        ],
    },
    Group {
        title: "Qlik Sense (QRS)",
        entries: &[
            warning(
                "qrs_away",
                "the Qlik Repository Service cannot be asked, or refuses",
                "the line says what to do; [more](troubleshooting.md#tasks-do-not-start)",
            ),
            warning(
                "qrs_host_changed",
                "another node of the site is asked from now on",
                "look whether the first is well",
            ),
            warning(
                "qrs_sees_no_task",
                "the user of `configQRS` sees no task",
                "give it the rights ([security](security.md))",
            ),
            warning(
                "qrs_certificates_refused",
                "changed certificate files for QRS cannot be used; the ones read before are",
                "put files there that belong together",
            ),
            warning(
                "qrs_entries_skipped",
                "QRS answered with entries that have no id or no state",
                "report it with the version of Qlik Sense",
            ),
            warning(
                "polling_failed",
                "what ended could not be asked; it is asked again",
                "look whether QRS is well: `sense-butler doctor`",
            ),
            warning(
                "polling_gap",
                "the program did not run for more than a day; what ended before that day is not told",
                "look in the QMC what you missed",
            ),
            warning(
                "notifications_not_asked",
                "QRS could not be asked to call when an execution changes",
                "the error says why; [event sources](event-sources.md)",
            ),
            warning(
                "notification_refused",
                "somebody called the address for notifications who is not allowed",
                "if it is a node of the site, add it to `eventSources.notifications.allowedSources`",
            ),
        ],
    },
    Group {
        title: "Starts of tasks",
        entries: &[
            warning(
                "starts_too_many",
                "a start request was refused because of `startTask.limits`",
                "`requested_by` says who; ask less, or raise the limit ([tasks](tasks.md#how-much))",
            ),
            warning(
                "start_interrupted",
                "the program ended in the middle of a start request, and whoever asked has gone",
                "look in the QMC whether the task ran; ask again if it is still wanted",
            ),
            warning(
                "start_outcome_unknown",
                "QRS was asked to start a task and did not say what became of it",
                "look in the QMC whether the task runs",
            ),
            error(
                "start_not_written",
                "what became of a start could not be written to disk",
                "check the disk with the data directory",
            ),
            error(
                "start_unreadable",
                "a start request kept on disk cannot be read",
                "look in the QMC which tasks ran; check the disk",
            ),
            warning("execution_lost", "QRS knows nothing of an execution any more", "look in the QMC how it ended"),
            warning(
                "starts_unanswered_at_stop",
                "the program stopped before QRS answered every start",
                "look in the QMC which of those tasks run",
            ),
            warning(
                "answer_dropped",
                "the answer to a message could not be published",
                "look at the broker: `sense-butler doctor`",
            ),
            warning(
                "messages_left_at_stop",
                "the program stopped before every message was answered",
                "nothing: what was asked of tasks is answered after the next start of the program",
            ),
            warning(
                "kept_message_unhandled",
                "a message waited for a start topic that is not configured any more",
                "send it again to a topic of today",
            ),
            warning(
                "executions_dropped",
                "changes of executions were not published on their topics",
                "look at the broker; `/api/v1/executions` has their state",
            ),
            warning(
                "executions_left_at_stop",
                "the program stopped before every change of an execution was published",
                "look in the QMC how those tasks ended",
            ),
            warning(
                "audit_log_missing",
                "the audit log of starts cannot be written",
                "make `logDirectory` writable, or write `startTask.auditLog: false`",
            ),
        ],
    },
];
