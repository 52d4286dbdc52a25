//! Codes about the program itself: REST and console, certificates and configuration, defects.

use super::{Group, error, warning};

pub(super) const HOUSE: &[Group] = &[
    Group {
        title: "REST and the console",
        entries: &[
            warning(
                "token_refused",
                "a caller showed a token that is unknown, over, revoked, or not enough",
                "if it may, make a token that does ([security](security.md#tokens))",
            ),
            error(
                "tokens_unreadable",
                "the file of tokens cannot be read; the tokens of before stay in force",
                "look at the file and who may read it",
            ),
            warning(
                "console_login_refused",
                "a log-in to the console was refused; `why` says the reason, `peer` from where",
                "if it was not you: [who guesses passwords](security.md#who-guesses-passwords)",
            ),
            warning(
                "rest_full",
                "too many connections are open, all with a request in hand",
                "look who calls so often; let callers keep their connections",
            ),
            warning(
                "rest_accept_failed",
                "the system gave no connection",
                "look whether the machine is short of memory or open files",
            ),
        ],
    },
    Group {
        title: "Certificates and configuration",
        entries: &[
            warning(
                "certificate_ends_soon",
                "a certificate ends within weeks",
                "replace the file; it is taken within seconds",
            ),
            error(
                "certificate_expired",
                "a certificate is over, and clients refuse it",
                "replace the file; it is taken within seconds",
            ),
            error(
                "tls_files_refused",
                "changed certificate files cannot be used; the ones read before are",
                "put a certificate and its key there that belong together",
            ),
            error(
                "config_refused",
                "the configuration that was to be read again has mistakes; what was in force still is",
                "correct the places the line names, and `sense-butler reload`",
            ),
            warning(
                "config_needs_restart",
                "keys have changed that are not taken while the program runs",
                "restart when it suits ([what is taken](operations.md#change-the-configuration-while-it-runs))",
            ),
            warning(
                "config_to_know",
                "something in the configuration is remarkable: a check that is off, a key without effect",
                "as the line says",
            ),
            warning(
                "config_not_kept",
                "the good configuration could not be copied to `last-good`",
                "check the disk and the rights there",
            ),
            error(
                "broker_file_refused",
                "the changed `broker.toml` has mistakes; the users and rules of before are in force",
                "correct it; it is read again by itself",
            ),
            warning(
                "broker_file_needs_restart",
                "`broker.toml` has changes that are not taken while the program runs",
                "restart when it suits",
            ),
            warning(
                "broker_file_without_users",
                "`broker.toml` names no users any more, so nobody comes in",
                "write users there, or restart",
            ),
        ],
    },
    Group {
        title: "The program itself",
        entries: &[
            error("defect", "a part of the program panicked", "report it with the lines before"),
            error(
                "part_restarted",
                "a part of the program failed and is started again",
                "report it if it does so again",
            ),
            error(
                "program_gives_up",
                "a part failed without which the program cannot go on",
                "start it again (a service manager does), and report it",
            ),
            warning("failed_at_stop", "a part failed while the program was stopping", "report it"),
            warning(
                "stop_too_slow",
                "parts did not stop within the time they have",
                "nothing; report it if every stop says so",
            ),
            error("signal_unavailable", "the system does not let a signal be handled", "stop or reload another way"),
            error("openapi_unwritable", "the description of the REST API cannot be written: a defect", "report it"),
            error("metrics_unwritable", "the metrics cannot be written: a defect", "report it"),
            warning(
                "systemd_not_told",
                "systemd cannot be told how the program is",
                "start it by [the shipped unit](operations.md#under-systemd)",
            ),
            warning(
                "windows_not_told",
                "Windows' service manager could not be told",
                "look at `sense-butler service status`",
            ),
        ],
    },
];
