//! What changes models and settings: requests to load and unload, and settings of traces and logs.

use headrace_types::{Error, ErrorCode, Result};
use serde_json::{Map, Value, json};

use super::column::entry;
use super::wire::Fields;

/// Settings that a request may have; there are a dozen.
const SETTINGS_MAX: usize = 1_000;

/// Reads a RepositoryModelLoadRequest or RepositoryModelUnloadRequest: the model's name, and the names of parameters.
///
/// # Errors
/// `invalid_argument` for what is none.
pub fn decode_model_change(bytes: &[u8]) -> Result<(&str, Vec<&str>)> {
    let mut fields = Fields::of("RepositoryModelLoadRequest", bytes);
    let (mut name, mut parameters) = ("", Vec::new());
    while let Some((number, content)) = fields.next()? {
        match number {
            2 => name = fields.text(number, content)?,
            3 => parameters.push(entry(fields.bytes(number, content)?)?.0),
            _ => {}
        }
    }
    Ok((name, parameters))
}

/// A TraceSettingRequest or LogSettingsRequest as it stands in its bytes: the settings are not read yet.
#[derive(Debug, Default)]
pub struct SettingsMessage<'a> {
    /// Of traces; none for the settings of all models.
    pub model: Option<&'a str>,
    entries: Vec<&'a [u8]>,
}

impl<'a> SettingsMessage<'a> {
    /// # Errors
    /// `invalid_argument` for what is none; `too_large`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::of("TraceSettingRequest", bytes);
        let mut message = Self::default();
        while let Some((number, content)) = fields.next()? {
            match number {
                1 if message.entries.len() == SETTINGS_MAX => {
                    let told = format!("the request has more than {SETTINGS_MAX} settings");
                    return Err(Error::new(ErrorCode::TooLarge, told, "send only what is to change"));
                }
                1 => message.entries.push(fields.bytes(number, content)?),
                2 => message.model = Some(fields.text(number, content)?).filter(|name| !name.is_empty()),
                _ => {}
            }
        }
        Ok(message)
    }

    /// Whether it only asks.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The settings of a TraceSettingRequest as those of HTTP: texts, several as a list, null where there is none.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn of_traces(&self) -> Result<Map<String, Value>> {
        self.settings(|bytes| {
            let mut fields = Fields::of("SettingValue", bytes);
            let mut texts = Vec::new();
            while let Some((number, content)) = fields.next()? {
                if number == 1 {
                    texts.push(fields.text(number, content)?);
                }
            }
            Ok(match texts[..] {
                [] => Value::Null,
                [text] => text.into(),
                _ => texts.into(),
            })
        })
    }

    /// The settings of a LogSettingsRequest as those of HTTP.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub fn of_logs(&self) -> Result<Map<String, Value>> {
        self.settings(|bytes| {
            let mut fields = Fields::of("SettingValue", bytes);
            let mut value = Value::Null;
            while let Some((number, content)) = fields.next()? {
                value = match number {
                    1 => (fields.number(number, content)? != 0).into(),
                    2 => fields.number(number, content)?.into(),
                    3 => fields.text(number, content)?.into(),
                    _ => continue,
                };
            }
            Ok(value)
        })
    }

    fn settings(&self, value: impl Fn(&'a [u8]) -> Result<Value>) -> Result<Map<String, Value>> {
        let setting = |entry_bytes: &&'a [u8]| {
            let (name, bytes) = entry(entry_bytes)?;
            Ok((name.to_owned(), value(bytes)?))
        };
        self.entries.iter().map(setting).collect()
    }
}

/// The JSON of a TraceSettingResponse, from what HTTP answers.
pub fn trace_settings(settings: &Value) -> Value {
    told(settings, |value| match value {
        Value::Array(_) => json!({ "value": value }),
        one => json!({ "value": [one] }),
    })
}

/// The JSON of a LogSettingsResponse, from what HTTP answers.
pub fn log_settings(settings: &Value) -> Value {
    told(settings, |value| match value {
        Value::Bool(_) => json!({ "bool_param": value }),
        Value::Number(_) => json!({ "uint32_param": value }),
        _ => json!({ "string_param": value }),
    })
}

fn told(settings: &Value, value: impl Fn(&Value) -> Value) -> Value {
    let settings = settings.as_object().into_iter().flatten();
    let settings: Map<String, Value> = settings.map(|(name, found)| (name.clone(), value(found))).collect();
    json!({ "settings": settings })
}
