//! Histograms that hot paths keep in atomics, as Prometheus' registry wants to see them. OpenTelemetry has no
//! observable histogram, and recording through its SDK costs more than the calls that are measured can spare.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// What is read of one histogram at a scrape.
pub(super) struct Reading {
    /// Label names and values.
    pub(super) labels: Vec<(&'static str, String)>,
    /// Upper bounds of all buckets but the last.
    pub(super) bounds: Vec<f64>,
    /// How many values fell into each bucket; one more than there are bounds.
    pub(super) counts: Vec<u64>,
    /// The sum of all values.
    pub(super) sum: f64,
}

/// A family of histograms that are read when they are scraped.
pub(super) struct Histograms<R> {
    desc: Desc,
    read: R,
}

impl<R: Fn() -> Vec<Reading> + Send + Sync> Histograms<R> {
    /// A family by a name, which is read by `read`.
    ///
    /// # Errors
    /// When the name or help is none to Prometheus.
    pub(super) fn new(name: &str, help: &str, labels: &[&str], read: R) -> prometheus::Result<Self> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())?;
        Ok(Self { desc, read })
    }
}

impl<R: Fn() -> Vec<Reading> + Send + Sync> Collector for Histograms<R> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let readings = (self.read)();
        if readings.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(readings.into_iter().map(metric).collect());
        vec![family]
    }
}

fn metric(reading: Reading) -> Metric {
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(reading.counts.len());
    for (bound, count) in reading.bounds.iter().zip(&reading.counts) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    // The last bucket, which has no bound, is the count of all: the text format adds it by itself.
    histogram.set_sample_count(reading.counts.iter().sum());
    histogram.set_sample_sum(reading.sum);
    histogram.set_bucket(buckets);
    let labels = reading.labels.into_iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value);
        label
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    metric.set_histogram(histogram);
    metric
}
