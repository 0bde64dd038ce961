//! The same as a page to read: one HTML text, without scripts and without anything from elsewhere.

use std::fmt::Write;

use headrace_engine::{Deployment, Engine, Section};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    code,pre{font-family:ui-monospace,monospace;background:#8881;border-radius:4px;padding:.1em .3em}pre{padding:.8em;overflow:auto}\
    table{border-collapse:collapse}td,th{border:1px solid #8884;padding:.2em .7em;text-align:left}:root{color-scheme:light dark}";

/// GET /v1/docs
pub fn page(engine: &Engine) -> Vec<u8> {
    let mut out = String::with_capacity(8192);
    out.push_str(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">",
    );
    put(
        &mut out,
        format_args!("<title>headrace</title><style>{STYLE}</style><h1>headrace {}</h1>", env!("CARGO_PKG_VERSION")),
    );
    out.push_str(
        "<p>What this server answers. For programs: <a href=openapi.json>openapi.json</a>. The Open Inference Protocol is under \
         <code>/v2</code>, features are at <code>POST /get-online-features</code>, health at <code>GET /v2/health/ready</code>.</p>",
    );
    let mut models = engine.models();
    models.dedup_by(|one, other| one.name() == other.name());
    if models.is_empty() {
        out.push_str("<p>No model is loaded.</p>");
    }
    for deployment in models.iter().filter_map(|model| engine.find_model(model.name(), None).ok()) {
        put_deployment(&mut out, &deployment);
    }
    out.push_str("</html>\n");
    out.into_bytes()
}

fn put_deployment(out: &mut String, deployment: &Deployment) {
    let name = escaped(deployment.name());
    let task = serde_json::to_value(deployment.task()).unwrap_or_default();
    let task = task.as_str().unwrap_or_default();
    put(out, format_args!("<h2>{name}</h2><p>Version {}, {task}.</p>", deployment.version()));
    if let Some(fault) = deployment.fault() {
        put(out, format_args!("<p><strong>Not ready:</strong> {}</p>", escaped(&fault.to_string())));
    }
    if deployment.tensor_model().is_some() && deployment.sequences().is_none() {
        put(out, format_args!("<pre>POST /v2/models/{}/infer</pre>", escaped(&super::segment(deployment.name()))));
        return;
    }
    put(out, format_args!("<pre>POST /v1/deployments/{}/predict</pre>", escaped(&super::segment(deployment.name()))));
    out.push_str("<table><tr><th>column<th>in<th>type");
    for section in Section::ALL {
        for field in deployment.fields(section) {
            put(out, format_args!("<tr><td>{}<td>{}<td>{}", escaped(&field.name), section.name(), field.dtype));
        }
    }
    out.push_str("</table>");
    if !deployment.classes().is_empty() {
        put(out, format_args!("<p>Classes: {}</p>", escaped(&deployment.classes().join(", "))));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into memory cannot fail.
    let _ = out.write_fmt(text);
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
