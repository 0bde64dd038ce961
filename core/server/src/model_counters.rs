//! What models and their queues have counted, for Prometheus: under our names, and under Triton's where it has one for the same thing.

use headrace_engine::{Engine, FailureReason, MetricsSnapshot, Phase, QueueStats, RefusalReason, TransportPhase};

use crate::counters::Page;

/// One model version's numbers at one moment.
struct Counted {
    name: String,
    version: String,
    is_ready: bool,
    metrics: MetricsSnapshot,
    queue: QueueStats,
}

impl Counted {
    fn labels(&self) -> [(&str, &str); 2] {
        [("model", &self.name), ("version", &self.version)]
    }

    fn labels_and<'a>(&'a self, name: &'a str, value: &'a str) -> [(&'a str, &'a str); 3] {
        let [model, version] = self.labels();
        [model, version, (name, value)]
    }
}

pub(crate) fn write_models(engine: &Engine, page: &mut Page) {
    let models: Vec<Counted> = engine
        .models()
        .iter()
        .map(|model| Counted {
            name: model.name().to_owned(),
            version: model.version().to_string(),
            is_ready: model.fault().is_none(),
            metrics: model.metrics().snapshot(),
            queue: model.queue_stats(),
        })
        .collect();
    write_states(engine, &models, page);
    write_requests(&models, page);
    write_queues(&models, page);
    write_triton(&models, page);
}

fn write_states(engine: &Engine, models: &[Counted], page: &mut Page) {
    page.family("headrace_model_ready", "gauge", "1 when the model version can answer.");
    for model in models {
        page.sample("headrace_model_ready", &model.labels(), u64::from(model.is_ready));
    }
    for (name, version, _) in engine.unloaded_models() {
        page.sample("headrace_model_ready", &[("model", &name), ("version", &version.to_string())], 0);
    }
    let help = "Attempts to load a model version that failed; the repository index tells why.";
    page.family("headrace_model_load_failures_total", "counter", help);
    page.sample("headrace_model_load_failures_total", &[], engine.load_failures());
}

fn write_requests(models: &[Counted], page: &mut Page) {
    let name = "headrace_predict_requests_total";
    page.family(name, "counter", "Predict requests, by outcome.");
    for model in models {
        let metrics = &model.metrics;
        for (outcome, count) in [("ok", metrics.requests), ("error", metrics.failed_requests())] {
            page.sample(name, &model.labels_and("outcome", outcome), count);
        }
    }
    let name = "headrace_predict_rows_total";
    page.family(name, "counter", "Rows of answered predict requests, by outcome.");
    for model in models {
        let metrics = &model.metrics;
        for (outcome, count) in [("ok", metrics.answered_rows()), ("error", metrics.failed_rows)] {
            page.sample(name, &model.labels_and("outcome", outcome), count);
        }
    }
    let name = "headrace_predict_phase_seconds";
    page.family(name, "histogram", "Where the time of predict requests went, by phase.");
    for model in models {
        for phase in Phase::ALL {
            page.histogram(name, &model.labels_and("phase", phase.name()), model.metrics.phase(phase));
        }
        for phase in TransportPhase::ALL {
            page.histogram(name, &model.labels_and("phase", phase.name()), model.metrics.transport(phase));
        }
    }
    let name = "headrace_predict_cost_seconds_total";
    page.family(
        name,
        "counter",
        "What answered requests are charged for: lookup, transform, and their part of the model's calls.",
    );
    for model in models {
        #[allow(clippy::cast_precision_loss)] // 53 bits of nanoseconds are 104 days
        page.number(name, &model.labels(), model.metrics.cost_ns as f64 / 1e9);
    }
}

fn write_queues(models: &[Counted], page: &mut Page) {
    let name = "headrace_queue_waiting_requests";
    page.family(name, "gauge", "Requests that wait for their model.");
    for model in models {
        page.sample(name, &model.labels(), model.queue.waiting as u64);
    }
    let name = "headrace_queue_refused_requests_total";
    page.family(
        name,
        "counter",
        "Requests that a model's queue refused (full, late: they would end too late) or dropped (expired, gone).",
    );
    for model in models {
        for reason in RefusalReason::ALL {
            let count = model.queue.refused[reason as usize];
            page.sample(name, &model.labels_and("reason", reason.name()), count);
        }
    }
    let name = "headrace_model_calls_total";
    page.family(name, "counter", "Calls of the model, by where they came from: one request, or the queue.");
    for model in models {
        for (from, count) in [("request", model.metrics.direct_calls), ("queue", model.queue.calls)] {
            page.sample(name, &model.labels_and("from", from), count);
        }
    }
}

type Value = fn(&Counted) -> u64;

/// Triton's names, for dashboards that have them.
fn write_triton(models: &[Counted], page: &mut Page) {
    let counters: [(&str, &str, Value); 8] = [
        ("nv_inference_request_success", "Requests answered.", |model| model.metrics.requests),
        ("nv_inference_count", "Rows answered.", |model| model.metrics.answered_rows()),
        ("nv_inference_exec_count", "Calls of the model.", |model| model.metrics.direct_calls + model.queue.calls),
        ("nv_inference_request_duration_us", "Time of requests.", |model| us(model, &[Phase::Total])),
        ("nv_inference_queue_duration_us", "Time in the queue.", |model| us(model, &[Phase::Queue])),
        ("nv_inference_compute_input_duration_us", "Time of lookups and transforms.", |model| {
            us(model, &[Phase::Lookup, Phase::Transform])
        }),
        ("nv_inference_compute_infer_duration_us", "Time of the model.", |model| us(model, &[Phase::Model])),
        ("nv_inference_compute_output_duration_us", "Time of telling the outputs.", |model| {
            model.metrics.transport(TransportPhase::Encode).sum_ns() / 1000
        }),
    ];
    for (name, help, value) in counters {
        page.family(name, "counter", help);
        for model in models {
            page.sample(name, &model.labels(), value(model));
        }
    }
    let name = "nv_inference_request_failure";
    page.family(name, "counter", "Requests that failed, by reason.");
    for model in models {
        for reason in FailureReason::ALL {
            let gone =
                if reason == FailureReason::Canceled { model.queue.refused[RefusalReason::Gone as usize] } else { 0 };
            let count = model.metrics.failures[reason as usize] + gone;
            page.sample(name, &model.labels_and("reason", reason.name()), count);
        }
    }
    let name = "nv_inference_pending_request_count";
    page.family(name, "gauge", "Requests that wait for their model.");
    for model in models {
        page.sample(name, &model.labels(), model.queue.waiting as u64);
    }
}

fn us(model: &Counted, phases: &[Phase]) -> u64 {
    phases.iter().map(|phase| model.metrics.phase(*phase).sum_ns()).sum::<u64>() / 1000
}
