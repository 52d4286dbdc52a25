//! Codes about MQTT: the built-in broker, what is kept on disk, a broker elsewhere.

use super::{Group, error, warning};

pub(super) const BROKER: &[Group] = &[
    Group {
        title: "The built-in broker",
        entries: &[
            warning(
                "mqtt_client_refused",
                "a client was not let in; the line says why",
                "mend the client, or the users and rules in `broker.toml` ([security](security.md))",
            ),
            warning(
                "mqtt_client_broken",
                "a client was disconnected because it broke the rules of MQTT; `reason_code` is MQTT's word",
                "mend the client",
            ),
            warning(
                "mqtt_client_full",
                "a client does not read its messages, and its queue is full",
                "look why it is slow, or raise `limits.queue_bytes` and `limits.queue_messages`",
            ),
            warning(
                "mqtt_client_lagging",
                "a client reads so slowly that publishers do not wait for it any more",
                "look why it is slow",
            ),
            warning(
                "mqtt_client_unstored",
                "a client was disconnected because the store could not take what it sent",
                "see the line about the store before it",
            ),
            warning(
                "mqtt_client_revoked",
                "a client was disconnected because users or rules have changed",
                "nothing, if that is what was wanted",
            ),
            warning(
                "mqtt_dropped",
                "messages were dropped; the line and `reason` say why",
                "as the line says ([limits](sizing.md))",
            ),
            warning(
                "mqtt_accept_failed",
                "the system gave no connection",
                "look whether the machine is short of memory or open files",
            ),
            error(
                "self_probe_failed",
                "the broker does not pass its own messages on",
                "if it stays so for a minute, restart the program and report it",
            ),
            error(
                "engine_replaced",
                "the routing engine failed and was replaced; nothing is lost",
                "report it with the lines before",
            ),
            warning(
                "offline_not_said",
                "the broker did not take the last message of a program that stops",
                "nothing: its will says the same",
            ),
            warning("status_not_published", "state, info or health could not be published", "look at the broker"),
        ],
    },
    Group {
        title: "What is kept on disk",
        entries: &[
            error(
                "store_failed",
                "the broker's store cannot be written; what has to be stored is not taken until it can",
                "check the disk; [more](troubleshooting.md#a-stored-queue-cannot-be-read)",
            ),
            warning("store_disk_full", "the disk of the store is full", "make room"),
            warning(
                "store_over_quota",
                "the store holds `storage.max_store_bytes`",
                "end sessions nobody fetches from, or raise it ([sizing](sizing.md))",
            ),
            warning(
                "store_queue_full",
                "the stored queue of a session is full and messages are dropped",
                "end the session, or raise `max_queue_bytes` and `max_queue_messages`",
            ),
            warning(
                "store_refused",
                "the store does not take messages; their publishers are told",
                "see the line about the store before it",
            ),
            error("store_damaged", "stored messages are missing or damaged", "check the disk"),
            error(
                "store_queue_unreadable",
                "a stored queue cannot be read; its messages wait",
                "[check the disk](troubleshooting.md#a-stored-queue-cannot-be-read)",
            ),
            error(
                "store_set_aside",
                "the store could not be opened at the start; it was set aside, and the broker began an empty one",
                "check the disk; keep the file if something of it is needed",
            ),
            warning("store_without_ballast", "there is no room for the reserve of the store", "make room on its disk"),
            warning("store_not_compacted", "the store does not give room back until the next start", "check the disk"),
            error("store_defect", "a thread of the store ended: a defect", "report it with the lines before"),
            error(
                "keep_failed",
                "`sense.redb` cannot be written; starts and key-value pairs are refused until it can",
                "check the disk",
            ),
            error("keep_write_failed", "a change of something kept is not on disk", "check the disk"),
            error(
                "keep_set_aside",
                "`sense.redb` could not be opened at the start; it was set aside, and an empty one began",
                "check the disk; keep the file if something of it is needed",
            ),
            warning("keep_not_closed", "a store was not closed cleanly", "nothing: the next start takes longer"),
            error(
                "keep_defect",
                "the thread that writes `sense.redb` ended: a defect",
                "report it with the lines before",
            ),
            error(
                "values_unreadable",
                "key-value pairs mean nothing to this version",
                "use the version that wrote them, or check the disk",
            ),
            error(
                "keys_unreadable",
                "idempotency keys cannot be read: their requests would be carried out again",
                "check the disk",
            ),
            error("journal_unreadable", "events of `/api/v1/events` cannot be read and are left out", "check the disk"),
            warning(
                "journal_dropped",
                "events did not come into the journal of `/api/v1/events`; by MQTT they went out",
                "nothing, if it is rare: there were too many at a time; if it goes on, find out what sends so many",
            ),
            warning(
                "key_answer_not_kept",
                "what was answered under an idempotency key is not on disk",
                "check the disk; after a restart the outcome of that request is unknown",
            ),
        ],
    },
    Group {
        title: "A broker elsewhere",
        entries: &[
            warning(
                "external_broker_away",
                "the broker cannot be reached or does not let the program in",
                "look whether it runs and what `mqttConfig` says of it",
            ),
            warning(
                "external_broker_lost",
                "the connection was lost; it is made again",
                "if it goes on, look into its log",
            ),
            error(
                "external_refused",
                "it refused a message",
                "allow the user of `mqttConfig.brokerUser` to publish there",
            ),
            error(
                "external_subscription_refused",
                "it refused a subscription: tasks cannot be started by MQTT",
                "allow the user of `mqttConfig.brokerUser` to subscribe there",
            ),
            error("external_too_large", "it takes no message of this size", "raise its limit, or send less"),
            error(
                "external_message_given_up",
                "it ends the connection whenever it gets this message",
                "look into its log: too large, or forbidden there",
            ),
            error(
                "external_outbox_full",
                "too many messages wait for it, and some were dropped",
                "look whether it runs and takes messages",
            ),
            error(
                "external_reader_slow",
                "messages from it were dropped: a part of the program is too slow",
                "look whether this machine is busy",
            ),
            warning(
                "external_stop_lost",
                "the program stopped before it had taken every message",
                "start it before the program is stopped next time",
            ),
        ],
    },
];
