//! `GET /metrics`: what is counted, as OpenMetrics text.

use prometheus_client::encoding::text::encode;

use super::{
    answer::Answer,
    fault::{Fault, Kind},
    state::State,
};

/// Content type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn handle(state: &State) -> Result<Answer, Fault> {
    let mut text = String::with_capacity(16 << 10);
    encode(&mut text, &state.setup.registry)
        .map_err(|_| Fault::new(Kind::Internal, "the metrics could not be written as text"))?;
    Ok(Answer { status: 200, content_type: Some(OPEN_METRICS), headers: Vec::new(), body: text.into() })
}
