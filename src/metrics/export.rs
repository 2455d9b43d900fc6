//! The registry as Prometheus reads it: text exposition format, version 0.0.4.

use std::fmt::Write as _;

use super::{DURATION_BOUNDS, Declaration, Family, Kind, Sample, Snapshot, Value};

/// The `Content-Type` of [`prometheus`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every family that has a value, with its help and type.
pub fn prometheus(snapshot: &Snapshot) -> String {
    let mut text = String::with_capacity(8 * 1024);
    for family in Family::ALL {
        let declaration = family.declaration();
        let mut samples = snapshot
            .samples
            .iter()
            .filter(|sample| sample.family == family)
            .peekable();
        if samples.peek().is_none() {
            continue;
        }
        let Declaration { name, help, .. } = declaration;
        let kind = match declaration.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        line(
            &mut text,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"),
        );
        for sample in samples {
            write_sample(&mut text, &declaration, sample);
        }
    }
    text
}

fn write_sample(text: &mut String, declaration: &Declaration, sample: &Sample) {
    let name = declaration.name;
    let labels = labels(declaration, sample);
    match &sample.value {
        Value::Number(number) => {
            let labels = braced(&labels, "");
            line(text, format_args!("{name}{labels} {number}"));
        }
        Value::Fraction(hundredths) => {
            let labels = braced(&labels, "");
            let (whole, rest) = (hundredths / 100, hundredths % 100);
            line(text, format_args!("{name}{labels} {whole}.{rest:02}"));
        }
        Value::Histogram { counts, sum_nanos } => {
            let mut cumulative = 0_u64;
            let bounds = DURATION_BOUNDS.iter().map(|bound| bound.label);
            for (bound, count) in bounds.chain(["+Inf"]).zip(counts) {
                cumulative = cumulative.saturating_add(*count);
                let labels = braced(&labels, &format!("le=\"{bound}\""));
                line(text, format_args!("{name}_bucket{labels} {cumulative}"));
            }
            let labels = braced(&labels, "");
            let (seconds, nanos) = (sum_nanos / 1_000_000_000, sum_nanos % 1_000_000_000);
            line(
                text,
                format_args!("{name}_sum{labels} {seconds}.{nanos:09}"),
            );
            line(text, format_args!("{name}_count{labels} {cumulative}"));
        }
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// `app="shop",status="200"`
fn labels(declaration: &Declaration, sample: &Sample) -> String {
    let mut text = String::new();
    for (name, value) in declaration.labels.iter().zip(&sample.labels) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

fn braced(labels: &str, bound: &str) -> String {
    match (labels.is_empty(), bound.is_empty()) {
        (true, true) => String::new(),
        (false, false) => format!("{{{labels},{bound}}}"),
        _ => format!("{{{labels}{bound}}}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn families_are_exported_with_help_type_and_escaped_labels() {
        let metrics = Metrics::new(&["a\"b\\c\nd".into()]);
        metrics.connection_opened();
        let app = &metrics.apps()[0];
        for millis in [1, 30, 60_000] {
            app.begin();
            app.end(StatusCode::OK, Duration::from_millis(millis));
        }
        let mut snapshot = metrics.snapshot();
        snapshot.canary("items", "2.5".parse().unwrap(), 3);
        let text = prometheus(&snapshot);
        for expected in [
            "# HELP twinspan_connections Open client connections that speak HTTP; WebSockets are counted apart.\n\
             # TYPE twinspan_connections gauge\n\
             twinspan_connections 1\n",
            "# TYPE twinspan_requests_total counter\n\
             twinspan_requests_total{app=\"a\\\"b\\\\c\\nd\",status=\"200\"} 3\n",
            "twinspan_request_duration_seconds_bucket{app=\"a\\\"b\\\\c\\nd\",le=\"0.001\"} 1\n",
            "twinspan_request_duration_seconds_bucket{app=\"a\\\"b\\\\c\\nd\",le=\"0.05\"} 2\n",
            "twinspan_request_duration_seconds_bucket{app=\"a\\\"b\\\\c\\nd\",le=\"+Inf\"} 3\n\
             twinspan_request_duration_seconds_sum{app=\"a\\\"b\\\\c\\nd\"} 60.031000000\n\
             twinspan_request_duration_seconds_count{app=\"a\\\"b\\\\c\\nd\"} 3\n",
            "twinspan_canary_percent{rule=\"items\"} 2.50\n",
            "twinspan_rollbacks_total{rule=\"items\"} 3\n",
            &format!(
                "twinspan_build_info{{version=\"{}\"}} 1\n",
                env!("CARGO_PKG_VERSION")
            ),
        ] {
            assert!(text.contains(expected), "{expected}\nnot in\n{text}");
        }
    }

    #[test]
    fn a_family_is_introduced_once_however_many_workers_were_merged() {
        let mut snapshot = Metrics::new(&["one".into()]).snapshot();
        snapshot.merge(&Metrics::new(&["one".into(), "two".into()]).snapshot());
        let text = prometheus(&snapshot);
        for family in Family::ALL {
            let heading = format!("# TYPE {} ", family.declaration().name);
            assert!(text.matches(&heading).count() <= 1, "{heading}\n{text}");
        }
        assert!(text.contains("twinspan_workers 2\n"));
    }
}
