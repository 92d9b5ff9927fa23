//! A scrape of `/metrics` as a list of samples.

use std::collections::BTreeMap;

pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Reads the Prometheus text format, strictly enough to notice when it is not.
pub fn samples(text: &str) -> Vec<Sample> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| sample(line).unwrap_or_else(|| panic!("no sample: `{line}`")))
        .collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        value => value.parse().ok()?,
    };
    let Some((name, labels)) = series.split_once('{') else {
        return Some(Sample {
            name: series.to_owned(),
            labels: BTreeMap::new(),
            value,
        });
    };
    let mut found = BTreeMap::new();
    for label in labels.strip_suffix('}')?.split("\",") {
        if let Some((key, text)) = label.split_once("=\"") {
            found.insert(key.to_owned(), text.trim_end_matches('"').to_owned());
        }
    }
    Some(Sample {
        name: name.to_owned(),
        labels: found,
        value,
    })
}

/// The sum over the series that have these labels among theirs; `None` when there is none.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let matching = samples.iter().filter(|sample| {
        let has = |(key, text): &(&str, &str)| sample.labels.get(*key).is_some_and(|t| t == text);
        sample.name == name && labels.iter().all(has)
    });
    matching
        .map(|sample| sample.value)
        .reduce(|sum, value| sum + value)
}
