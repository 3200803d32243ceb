//! The push of the demo, in a build without retries and circuits.

use anyhow::Result;
use validator::external::External;
use validator::result::Report;

use super::services::Services;
use super::{Row, say, title};
use crate::output::delivery_line;

/// Sends the report once.
pub(super) async fn play(external: &External, report: &Report, _services: &mut Services) -> Result<Vec<Row>> {
    title("3. The report is sent, and both services are down");
    say("This build has no retries and no circuits, so each service gets one request.");
    let deliveries = external.push(report).await;
    for delivery in &deliveries {
        say(format_args!("  {}", delivery_line(delivery)));
    }
    let rows = deliveries.iter().map(|delivery| Row {
        subject: format!("push, {}", delivery.service),
        result: if delivery.error.is_none() { "delivered" } else { "not delivered" }.to_owned(),
        explanation: "The request failed. Without retries, it is not repeated.",
    });
    Ok(rows.collect())
}
