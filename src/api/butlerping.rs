//! `GET /v4/butlerping`: is anybody there?

use super::{answer::Answer, state::State};
use crate::config::settings::Generation;

pub(super) fn handle(state: &State) -> Answer {
    Answer::json(
        200,
        match state.setup.generation {
            Generation::V5_4 => r#"{"response":"Butler reporting for duty"}"#,
            Generation::Head => concat!(
                r#"{"response":"Butler reporting for duty","butlerVersion":"sense-butler "#,
                env!("CARGO_PKG_VERSION"),
                r#""}"#
            ),
        },
    )
}
