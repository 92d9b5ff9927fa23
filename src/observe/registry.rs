//! Every series there is, by name and labels, and how they become Prometheus text.
//!
//! The text format is the library's: families are handed to its encoder. Its own counters are not
//! used, since they share one cache line between all workers. Asking for a series a second time
//! gives the same cells, so what a reload keeps goes on counting.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto;

use crate::observe::cells::Cells;
use crate::observe::counter::Counter;
use crate::observe::gauge::Gauge;
use crate::observe::gauge::Level;
use crate::observe::histogram::Histogram;
use crate::observe::histogram::Scale;

/// What a family is called and what it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The full name, with unit and `_total` where they belong.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// The labels of a series: names from code, values from configuration or closed sets.
pub type Labels<'a> = [(&'static str, &'a str)];

/// All families. A name belongs to one kind of metric; asked for as another, it gives a metric that
/// is not shown.
#[derive(Debug)]
pub struct Registry {
    cells: Cells,
    families: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    series: BTreeMap<Vec<(&'static str, String)>, Series>,
}

#[derive(Clone, Copy, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Level(Level),
    Reading(Level),
    Histogram(Histogram),
}

impl Registry {
    /// A registry whose counters have a lane for each of `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            cells: Cells::new(workers),
            families: BTreeMap::new(),
        }
    }

    /// The counter of these labels.
    pub fn counter(&mut self, info: Info, labels: &Labels<'_>) -> Counter {
        let fresh = Counter::new(self.cells.run(1));
        match self.series(info, labels, Series::Counter(fresh)) {
            Series::Counter(counter) => counter,
            _ => fresh,
        }
    }

    /// The gauge of these labels.
    pub fn gauge(&mut self, info: Info, labels: &Labels<'_>) -> Gauge {
        let fresh = Gauge::new(self.cells.run(1));
        match self.series(info, labels, Series::Gauge(fresh)) {
            Series::Gauge(gauge) => gauge,
            _ => fresh,
        }
    }

    /// A gauge that was given before and removed since, under these labels.
    pub fn again(&mut self, info: Info, labels: &Labels<'_>, gauge: Gauge) -> Gauge {
        match self.series(info, labels, Series::Gauge(gauge)) {
            Series::Gauge(gauge) => gauge,
            _ => gauge,
        }
    }

    /// The series of these labels is shown no longer. Its cells stay those of whoever holds them.
    pub fn remove(&mut self, info: Info, labels: &Labels<'_>) {
        if let Some(family) = self.families.get_mut(info.name) {
            family.series.remove(&key(labels));
        }
    }

    /// The level of these labels.
    pub fn level(&mut self, info: Info, labels: &Labels<'_>) -> Level {
        let fresh = Level::new(self.cells.run(1));
        match self.series(info, labels, Series::Level(fresh)) {
            Series::Level(level) => level,
            _ => fresh,
        }
    }

    /// A counter that somebody else counts, the system for one, and that is only read.
    pub fn reading(&mut self, info: Info, labels: &Labels<'_>) -> Level {
        let fresh = Level::new(self.cells.run(1));
        match self.series(info, labels, Series::Reading(fresh)) {
            Series::Reading(level) => level,
            _ => fresh,
        }
    }

    /// The histogram of these labels.
    pub fn histogram(&mut self, info: Info, scale: Scale, labels: &Labels<'_>) -> Histogram {
        let fresh = Histogram::new(self.cells.run(Histogram::cells(scale)), scale);
        match self.series(info, labels, Series::Histogram(fresh)) {
            Series::Histogram(histogram) => histogram,
            _ => fresh,
        }
    }

    /// All families as Prometheus text.
    #[must_use]
    pub fn expose(&self) -> String {
        let families: Vec<_> = self
            .families
            .iter()
            .filter(|(_, family)| !family.series.is_empty())
            .map(|(name, f)| f.to_proto(name))
            .collect();
        // The encoder fails only on families without a name or a series; there are none.
        let text = TextEncoder::new().encode_to_string(&families);
        // It writes an infinity as Rust does; the format has a word of its own for it.
        text.unwrap_or_default().replace(" inf\n", " +Inf\n")
    }

    fn series(&mut self, info: Info, labels: &Labels<'_>, fresh: Series) -> Series {
        let family = self.families.entry(info.name).or_insert_with(|| Family {
            help: info.help,
            series: BTreeMap::new(),
        });
        *family.series.entry(key(labels)).or_insert(fresh)
    }
}

impl Family {
    fn to_proto(&self, name: &str) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(self.help.to_owned());
        let kind = self
            .series
            .values()
            .next()
            .map_or(proto::MetricType::GAUGE, Series::kind);
        family.set_field_type(kind);
        family.set_metric(
            self.series
                .iter()
                .map(|(l, series)| series.to_proto(l))
                .collect(),
        );
        family
    }
}

impl Series {
    fn kind(&self) -> proto::MetricType {
        match self {
            Self::Counter(_) | Self::Reading(_) => proto::MetricType::COUNTER,
            Self::Gauge(_) | Self::Level(_) => proto::MetricType::GAUGE,
            Self::Histogram(_) => proto::MetricType::HISTOGRAM,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the exposition format is made of floats"
    )]
    fn to_proto(self, labels: &[(&'static str, String)]) -> proto::Metric {
        let mut metric = proto::Metric::from_label(labels.iter().map(label_pair).collect());
        match self {
            Self::Counter(counter) => metric.set_counter(counter_of(counter.value() as f64)),
            Self::Gauge(gauge) => metric.set_gauge(gauge_of(gauge.value() as f64)),
            Self::Level(level) => metric.set_gauge(gauge_of(level.value())),
            Self::Reading(level) => metric.set_counter(counter_of(level.value())),
            Self::Histogram(histogram) => metric.set_histogram(histogram_of(&histogram)),
        }
        metric
    }
}

fn key(labels: &Labels<'_>) -> Vec<(&'static str, String)> {
    let pairs = labels.iter();
    pairs
        .map(|&(name, value)| (name, value.to_owned()))
        .collect()
}

fn counter_of(value: f64) -> proto::Counter {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    counter
}

fn gauge_of(value: f64) -> proto::Gauge {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    gauge
}

fn histogram_of(histogram: &Histogram) -> proto::Histogram {
    let bucket = |(bound, below)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(below);
        bucket
    };
    let mut value = proto::Histogram::default();
    value.set_bucket(histogram.buckets().map(bucket).collect());
    // Counted after the buckets: counts only grow, so no bucket exceeds the total.
    value.set_sample_count(histogram.count());
    value.set_sample_sum(histogram.sum());
    value
}

fn label_pair((name, value): &(&'static str, String)) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name((*name).to_owned());
    pair.set_value(value.clone());
    pair
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: Info = Info {
        name: "holdfast_x_total",
        help: "Counts x.",
    };

    #[test]
    fn a_series_asked_for_twice_is_the_same() {
        let mut registry = Registry::new(1);
        registry.counter(INFO, &[("listener", "a")]).inc();
        registry.counter(INFO, &[("listener", "a")]).inc();
        assert!(
            registry
                .expose()
                .contains("holdfast_x_total{listener=\"a\"} 2\n")
        );
    }

    #[test]
    fn a_series_is_there_before_anything_is_counted() {
        let mut registry = Registry::new(1);
        registry.counter(INFO, &[]);
        let text = "# HELP holdfast_x_total Counts x.\n# TYPE holdfast_x_total counter\nholdfast_x_total 0\n";
        assert_eq!(registry.expose(), text);
    }
}
