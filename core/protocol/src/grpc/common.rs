//! The Common API's Predict and GetOnlineFeatures: the same requests and answers as in JSON, as messages.

use std::num::NonZeroUsize;
use std::time::Duration;

use headrace_engine::{
    Deployment, Engine, Explain, FeatureRequest, FeatureResponse, NO_LABEL, Outputs, Phase, PredictRequest,
    PredictResponse, Priority, Section, Timing,
};
use headrace_types::{Batch, Column, Error, FeatureStatus, Result, Task};

use super::column::{entry, put_column, read_column, status_number};
use super::wire::{Fields, broken, put_bytes, put_double, put_doubles, put_nested, put_number, put_text, put_varint};
use crate::OnlineFeaturesRequest;
use crate::common::{API_VERSION, check_explained_bytes, timeout_of, unknown_output};
use crate::json::KEYS_MAX;

/// A PredictRequest as it stands in its bytes: the deployment is named, columns are not read yet.
#[derive(Debug, Default)]
pub struct PredictMessage<'a> {
    pub deployment: &'a str,
    pub version: &'a str,
    id: &'a str,
    columns: Vec<(Section, &'a str, &'a [u8])>,
    outputs: Option<Outputs>,
    explain: Option<Explain>,
    timeout: Option<Duration>,
    priority: Priority,
}

impl<'a> PredictMessage<'a> {
    /// # Errors
    /// `invalid_argument` for what is no PredictRequest, or an output or a priority that there is not.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::of("PredictRequest", bytes);
        let mut message = Self::default();
        while let Some((number, content)) = fields.next()? {
            let section = match number {
                1 => {
                    message.deployment = fields.text(number, content)?;
                    continue;
                }
                2 => {
                    message.version = fields.text(number, content)?;
                    continue;
                }
                3 => {
                    message.id = fields.text(number, content)?;
                    continue;
                }
                4 => Section::Entities,
                5 => Section::Features,
                6 => Section::Request,
                7 => {
                    let name = fields.text(number, content)?;
                    let outputs = message.outputs.unwrap_or(Outputs::NONE).with(name);
                    message.outputs = Some(outputs.ok_or_else(|| unknown_output(name))?);
                    continue;
                }
                8 => {
                    message.explain = Some(explain(fields.bytes(number, content)?)?);
                    continue;
                }
                9 => {
                    message.timeout = timeout_of(fields.number(number, content)?);
                    continue;
                }
                10 => {
                    message.priority = Priority::of_level(fields.number(number, content)?)?;
                    continue;
                }
                _ => continue,
            };
            let (name, column) = entry(fields.bytes(number, content)?)?;
            push(&mut message.columns, (section, name, column))?;
        }
        Ok(message)
    }
}

fn push<T>(columns: &mut Vec<T>, column: T) -> Result<()> {
    if columns.len() == KEYS_MAX {
        return Err(broken("request", format_args!("it has more than {KEYS_MAX} columns")));
    }
    columns.push(column);
    Ok(())
}

fn explain(bytes: &[u8]) -> Result<Explain> {
    let mut fields = Fields::of("Explain", bytes);
    let mut explain = Explain::default();
    while let Some((number, content)) = fields.next()? {
        if number == 1 {
            explain.top = usize::try_from(fields.number(number, content)?).ok().and_then(NonZeroUsize::new);
        }
    }
    Ok(explain)
}

/// Reads the columns of a request by a model's signature.
///
/// # Errors
/// As [`crate::decode_predict`].
pub fn decode_predict(deployment: &Deployment, message: &PredictMessage<'_>) -> Result<PredictRequest> {
    let id = Some(message.id).filter(|id| !id.is_empty()).map(str::to_owned);
    let outputs = message.outputs.unwrap_or_default();
    let PredictMessage { explain, timeout, priority, .. } = *message;
    let mut request = PredictRequest { id, outputs, explain, timeout, priority, ..PredictRequest::default() };
    for (section, name, bytes) in &message.columns {
        let field = deployment.field(*section, name)?;
        let column = read_column(bytes, field, deployment.rows_max(), &mut request.row_errors)?;
        let batch = match section {
            Section::Entities => &mut request.entities,
            Section::Features => &mut request.features,
            Section::Request => &mut request.request,
        };
        batch.columns.push((field.name.clone(), column));
    }
    for batch in [&mut request.entities, &mut request.features, &mut request.request] {
        batch.rows = batch.columns.first().map_or(0, |(_, column)| column.len());
    }
    if let Some(explain) = request.explain {
        check_explained_bytes(deployment, request.rows(), explain)?;
    }
    Ok(request)
}

/// Appends the PredictResponse. `deployment` is the one that answered.
pub fn encode_predict(out: &mut Vec<u8>, deployment: &Deployment, response: &PredictResponse) {
    put_beginning(out, deployment, &response.id);
    for row in 0..response.rows {
        put_nested(out, 7, |out| put_prediction(out, deployment, response, row));
    }
    put_timing(out, &response.timing);
}

/// The fields of a PredictResponse before its predictions.
pub(super) fn put_beginning(out: &mut Vec<u8>, deployment: &Deployment, id: &str) {
    put_text(out, 1, id);
    put_text(out, 2, API_VERSION);
    put_text(out, 3, deployment.name());
    put_text(out, 4, deployment.name());
    put_text(out, 5, &deployment.version().to_string());
    put_text(out, 6, task_name(deployment.task()));
}

/// The field of a PredictResponse behind its predictions.
pub(super) fn put_timing(out: &mut Vec<u8>, timing: &Timing) {
    put_nested(out, 8, |out| {
        for (number, phase) in (1..).zip(Phase::ALL) {
            #[allow(clippy::cast_precision_loss)] // tenths of a microsecond of a request's life
            put_double(out, number, (timing.of(phase).as_nanos() / 100) as f64 / 10.0);
        }
    });
}

/// Why a row has no answer, in its Prediction.
pub(super) fn put_status(out: &mut Vec<u8>, error: &Error) {
    put_nested(out, 6, |out| {
        put_text(out, 1, error.code.slug());
        put_text(out, 2, &error.to_string());
    });
}

fn task_name(task: Task) -> &'static str {
    match task {
        Task::Classification => "classification",
        Task::Regression => "regression",
        Task::MultiLabel => "multi_label",
        Task::Seq2seq => "seq2seq",
        Task::Ranking => "ranking",
        Task::Tensors => "tensors",
    }
}

fn put_prediction(out: &mut Vec<u8>, deployment: &Deployment, response: &PredictResponse, row: usize) {
    let width = response.scores_count();
    let scores = response.scores.get(row * width..).and_then(|scores| scores.get(..width)).unwrap_or_default();
    let Outputs { label, scores: tells_scores, margin } = response.outputs;
    let put_scores = |out: &mut Vec<u8>| {
        for (class, score) in response.classes.iter().zip(scores).filter(|_| tells_scores) {
            put_named(out, 2, class, *score);
        }
    };
    match response.task {
        Task::Classification if label || tells_scores => put_nested(out, 1, |out| {
            let chosen = response.labels.get(row).copied().unwrap_or(NO_LABEL);
            if let Some(class) = response.classes.get(chosen as usize).filter(|_| label) {
                put_bytes(out, 1, class.as_bytes());
            }
            put_scores(out);
        }),
        Task::MultiLabel if label || tells_scores => put_nested(out, 2, |out| {
            let chosen = response.classes.iter().zip(scores).filter(|(_, score)| deployment.chooses(**score));
            chosen.filter(|_| label).for_each(|(class, _)| put_bytes(out, 1, class.as_bytes()));
            put_scores(out);
        }),
        Task::Regression | Task::Ranking | Task::Seq2seq if label => {
            put_nested(out, 3, |out| scores.iter().take(1).for_each(|value| put_double(out, 1, *value)));
        }
        _ => {}
    }
    if margin {
        put_doubles(out, 4, &response.margins[row * response.margins_count..][..response.margins_count]);
    }
    for explanation in (0..response.margins_count).filter_map(|margin| response.explanation(row, margin)) {
        put_nested(out, 5, |out| {
            put_double(out, 1, explanation.expected);
            for (feature, contribution) in &explanation.contributions {
                put_named(out, 2, &deployment.features()[*feature].name, *contribution);
            }
            explanation.others.iter().for_each(|others| put_double(out, 3, *others));
        });
    }
    if let Some(found) = response.row_error(row) {
        put_status(out, &found.error);
    }
}

/// An entry of `map<string, double>`.
fn put_named(out: &mut Vec<u8>, number: u32, name: &str, value: f64) {
    put_nested(out, number, |out| {
        put_text(out, 1, name);
        put_double(out, 2, value);
    });
}

/// Reads a GetOnlineFeaturesRequest. Request fields may stand among the entities, as in JSON.
///
/// # Errors
/// `invalid_argument`, `unknown_feature_service`, `unknown_entity`, `type_mismatch` naming the column.
pub fn decode_online_features(engine: &Engine, bytes: &[u8]) -> Result<OnlineFeaturesRequest> {
    let mut fields = Fields::of("GetOnlineFeaturesRequest", bytes);
    let (mut name, mut full_feature_names, mut columns) = ("", false, Vec::new());
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => name = fields.text(number, content)?,
            2 | 3 => push(&mut columns, entry(fields.bytes(number, content)?)?)?,
            4 => full_feature_names = fields.number(number, content)? != 0,
            _ => {}
        }
    }
    let service = engine.feature_service(name)?;
    let mut row_errors = Vec::new();
    let (mut keys, mut others) = (Vec::new(), Vec::new());
    for (name, bytes) in columns {
        let field = service.field(name)?;
        let column = read_column(bytes, field, engine.rows_max(), &mut row_errors)?;
        let is_key = service.join_keys().iter().any(|key| key.name == *name);
        (if is_key { &mut keys } else { &mut others }).push((field.name.clone(), column));
    }
    let batch =
        |columns: Vec<(String, Column)>| Batch { rows: columns.first().map_or(0, |(_, column)| column.len()), columns };
    let features = FeatureRequest { entities: batch(keys), request: batch(others), row_errors };
    Ok(OnlineFeaturesRequest { service, features, full_feature_names })
}

/// Appends the GetOnlineFeaturesResponse: the join keys as they were given, then the features.
pub fn encode_online_features(out: &mut Vec<u8>, request: &OnlineFeaturesRequest, response: &FeatureResponse) {
    let keys = &request.features.entities.columns;
    let names = request.names(response);
    put_nested(out, 1, |out| {
        keys.iter().map(|(name, _)| name).chain(&names).for_each(|name| put_bytes(out, 1, name.as_bytes()));
    });
    let present = vec![FeatureStatus::Present; response.rows];
    let keys = keys.iter().map(|(_, column)| (column, &present));
    for (column, statuses) in keys.chain(response.columns.iter().zip(&response.statuses)) {
        put_nested(out, 2, |out| {
            put_nested(out, 1, |out| put_column(out, column));
            put_nested(out, 2, |out| statuses.iter().for_each(|status| put_varint(out, status_number(*status))));
        });
    }
}

/// Writes a message of one bool or enum in its first field.
pub fn encode_number(out: &mut Vec<u8>, value: u64) {
    put_number(out, 1, value);
}
