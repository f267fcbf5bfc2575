//! What DNS counts, as metrics.

use std::sync::Arc;

use konsul_fronts::dns::Counters;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

/// Sets up the instruments of DNS.
pub(crate) fn observe(meter: &Meter, counters: &Arc<Counters>) {
    let families = [
        ("konsul_dns_queries", "queries_by_type", "type", "DNS queries by type"),
        ("konsul_dns_answers", "answers_by_rcode", "rcode", "DNS answers by response code"),
        ("konsul_dns_queries_by_transport", "queries_by_transport", "transport", "DNS queries by transport"),
        ("konsul_dns_events", "events", "event", "What became of DNS packets besides being answered"),
    ];
    for (name, family, label, help) in families {
        let counters = counters.clone();
        meter
            .u64_observable_counter(name)
            .with_description(help)
            .with_callback(move |o| {
                for count in counters.all().filter(|count| count.family == family) {
                    o.observe(count.value, &[KeyValue::new(label, count.label)]);
                }
            })
            .build();
    }
}
