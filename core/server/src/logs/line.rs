//! How one line looks.

use headrace_engine::Engine;
use headrace_types::{Clock, SystemClock, format_timestamp};
use serde_json::Value;

use super::LogFormat;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warning,
    Info,
    /// Only with a `log_verbose_level` above 0.
    Verbose,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Verbose => "verbose",
        }
    }

    /// Whether the log's settings let it through.
    pub(crate) fn is_logged(self, engine: &Engine) -> bool {
        let settings = engine.settings().log_levels();
        match self {
            Level::Error => settings.error,
            Level::Warning => settings.warning,
            Level::Info => settings.info,
            Level::Verbose => settings.verbose_level > 0,
        }
    }
}

/// A line with its end. A text that somebody else gave cannot begin another one.
pub(crate) fn line(format: LogFormat, level: Level, event: &str, message: &str, fields: &[(&str, Value)]) -> String {
    let time = format_timestamp(SystemClock.now_us());
    match format {
        LogFormat::Json => {
            let mut line = format!("{{\"ts\":\"{time}\",\"level\":\"{}\"", level.name());
            let texts = [("event", Value::from(event)), ("message", Value::from(message))];
            for (name, value) in texts.iter().chain(fields) {
                line.push_str(&format!(",{}:{value}", Value::from(*name)));
            }
            line + "}\n"
        }
        LogFormat::Text => {
            let mut line = format!("{time} {} {event}: {}", level.name().to_uppercase(), plain(message));
            for (name, value) in fields {
                match value {
                    Value::String(text) if is_word(text) => line.push_str(&format!(" {name}={text}")),
                    value => line.push_str(&format!(" {name}={value}")),
                }
            }
            line + "\n"
        }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'=')
}

fn plain(message: &str) -> String {
    message.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use headrace_types::parse_timestamp;

    #[test]
    fn a_json_line_is_one_object_whatever_the_texts_hold() {
        let hostile = "a\"b\\c\nd\u{1}\u{2028}";
        let text =
            line(LogFormat::Json, Level::Warning, "refused", hostile, &[("count", 3.into()), ("id", hostile.into())]);
        assert_eq!(text.lines().count(), 1);
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&object["level"], &object["event"]), (&"warning".into(), &"refused".into()));
        assert_eq!(
            (&object["message"], &object["id"], &object["count"]),
            (&hostile.into(), &hostile.into(), &3.into())
        );
        parse_timestamp(object["ts"].as_str().unwrap()).unwrap();
    }

    #[test]
    fn a_text_line_is_one_line_whatever_the_texts_hold() {
        let text =
            line(LogFormat::Text, Level::Info, "ready", "one\r\ntwo", &[("id", "x\ny=1".into()), ("n", 4.into())]);
        assert_eq!(text.lines().count(), 1);
        assert!(text.ends_with(" INFO ready: one  two id=\"x\\ny=1\" n=4\n"), "{text}");
    }
}
