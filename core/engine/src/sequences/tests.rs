#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use headrace_types::{Batch, Datatype, Result, Task, Tensor, TensorInfo, TensorModel, TensorSignature, Value};

use super::*;
use crate::deployment::ModelSpec;
use crate::engine::EngineOptions;

/// Answers each token plus one, its half as its score, how many were no padding, and their number as the score.
#[derive(Debug)]
struct Plus(TensorSignature);

impl Plus {
    fn new(width: i64, is_told_padding: bool) -> Self {
        let tokens = |name: &str| TensorInfo::new(name, Datatype::Int32, [-1, width]);
        let lengths = |name: &str| TensorInfo::new(name, Datatype::Int64, [-1]);
        let mut inputs = vec![tokens("input_tokens")];
        if is_told_padding {
            inputs.push(lengths("input_lengths"));
        }
        let scores = TensorInfo::new("scores", Datatype::Fp64, [-1, width]);
        let score = TensorInfo::new("score", Datatype::Fp32, [-1]);
        let mut outputs = vec![scores, tokens("tokens"), score];
        if is_told_padding {
            outputs.push(lengths("lengths"));
        }
        Self(TensorSignature { inputs, outputs, batch_max: 4 })
    }
}

impl TensorModel for Plus {
    fn signature(&self) -> &TensorSignature {
        &self.0
    }

    fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>> {
        let (shape, numbers) = (inputs[0].shape().to_vec(), inputs[0].numbers(i32::from_le_bytes).unwrap());
        let numbers: Vec<i32> = numbers.collect();
        let rows = shape[0];
        let plus: Vec<u8> = numbers.iter().flat_map(|number| number.wrapping_add(1).to_le_bytes()).collect();
        let halves: Vec<u8> = numbers.iter().flat_map(|number| (f64::from(*number) / 2.0).to_le_bytes()).collect();
        let scores: Vec<u8> = (0..rows).flat_map(|row| f32::from(row as u16).to_le_bytes()).collect();
        let mut answered = vec![
            Tensor::new("scores", Datatype::Fp64, shape.clone(), halves.into())?,
            Tensor::new("tokens", Datatype::Int32, shape, plus.into())?,
            Tensor::new("score", Datatype::Fp32, vec![rows], scores.into())?,
        ];
        answered.extend(inputs.get(1).map(|lengths| lengths.renamed("lengths", vec![rows])).transpose()?);
        Ok(answered)
    }
}

fn engine(width: i64, is_told_padding: bool) -> (Engine, Arc<Deployment>) {
    let engine = Engine::new(EngineOptions::default());
    let model = Arc::new(Plus::new(width, is_told_padding));
    let spec = ModelSpec::of_tensors("plus", 1, Task::Seq2seq, "onnx", model);
    let deployment = engine.add_model(spec).unwrap();
    (engine, deployment)
}

fn request(rows: &[Option<&[i64]>]) -> PredictRequest {
    let list = |row: &Option<&[i64]>| {
        row.map_or(Value::Null, |row| Value::List(row.iter().map(|token| Value::Int(*token)).collect()))
    };
    let column = Column::from_values(DType::List(ScalarType::Int32), rows.iter().map(list)).unwrap();
    let features = Batch::new(vec![("tokens".to_owned(), column)]).unwrap();
    PredictRequest { features, ..PredictRequest::default() }
}

#[test]
fn rows_are_padded_where_the_model_is_told_and_bad_ones_fail_alone() {
    let (engine, plus) = engine(-1, true);
    assert_eq!(plus.features(), [Field::new("tokens", DType::List(ScalarType::Int32))]);
    let asked = request(&[Some(&[1, 2, 3]), None, Some(&[7]), Some(&[])]);
    let response = engine.predict_sequences(&plus, &asked).unwrap();
    let tokens: Vec<_> = response.sequences.iter().map(|sequence| sequence.tokens.clone()).collect();
    assert_eq!(tokens, [Some(vec![2, 3, 4]), None, Some(vec![8]), None]);
    assert_eq!(response.sequences[2].scores, Some(vec![3.5]));
    assert_eq!((response.sequences[2].score, response.sequences[1].score), (Some(1.0), None));
    assert_eq!(response.row_errors.iter().map(|error| error.row).collect::<Vec<_>>(), [1, 3]);
    assert!(response.row_error(1).unwrap().error.message.contains("row 1 of 'tokens' is null"));
    assert!(response.row_error(3).unwrap().error.message.contains("no tokens"));
    let metrics = plus.metrics().snapshot();
    assert_eq!((metrics.requests, metrics.rows), (1, 4));
}

#[test]
fn ragged_rows_without_padding_are_refused_by_name() {
    let (engine, plus) = engine(-1, false);
    let error = engine.predict_sequences(&plus, &request(&[Some(&[1, 2]), Some(&[7])])).unwrap_err();
    assert_eq!(error.code, ErrorCode::LengthMismatch);
    assert!(error.message.contains("row 1 of 'tokens' has 1 tokens, row 0 has 2"), "{error}");
    let response = engine.predict_sequences(&plus, &request(&[Some(&[1, 2]), Some(&[7, 8])])).unwrap();
    assert_eq!(response.sequences[1].tokens, Some(vec![8, 9]));
}

#[test]
fn a_fixed_width_bounds_each_row() {
    for (is_told_padding, tokens) in [(true, Some(vec![8])), (false, None)] {
        let (engine, plus) = engine(2, is_told_padding);
        let response =
            engine.predict_sequences(&plus, &request(&[Some(&[1, 2, 3]), Some(&[7]), Some(&[5, 5])])).unwrap();
        assert_eq!(response.sequences[1].tokens, tokens);
        assert_eq!(response.sequences[2].tokens, Some(vec![6, 6]));
        assert!(response.row_error(0).unwrap().error.message.contains("has 3 tokens, the model takes 2"));
    }
}

#[test]
fn requests_that_ask_for_too_much_or_nothing_are_named() {
    let (engine, plus) = engine(-1, true);
    let refusal = |request: &PredictRequest| engine.predict_sequences(&plus, request).unwrap_err();
    let five = request(&[Some(&[1][..]); 5]);
    assert_eq!(refusal(&five).code, ErrorCode::TooLarge);
    let long = vec![1; 1 << 21];
    let wide = request(&[Some(&long), Some(&[1]), Some(&[1])]);
    assert!(refusal(&wide).message.contains("padding included"));
    assert_eq!(refusal(&PredictRequest::default()).code, ErrorCode::MissingColumn);
    let margin = PredictRequest { outputs: Outputs { margin: true, ..Outputs::default() }, ..request(&[]) };
    assert!(refusal(&margin).message.contains("margin"));
    let explained = PredictRequest { explain: Some(crate::Explain::default()), ..request(&[]) };
    assert_eq!(refusal(&explained).code, ErrorCode::UnsupportedModel);
    let past = PredictRequest { deadline: Some(Instant::now()), ..request(&[]) };
    assert_eq!(refusal(&past).code, ErrorCode::DeadlineExceeded);
    assert!(engine.predict_sequences(&plus, &request(&[])).unwrap().sequences.is_empty());
    let all_bad = engine.predict_sequences(&plus, &request(&[None, None])).unwrap();
    assert_eq!((all_bad.sequences.len(), all_bad.row_errors.len()), (2, 2));
}

#[test]
fn a_model_with_other_names_is_refused() {
    let mut model = Plus::new(-1, false);
    model.0.outputs[1].name = "logits".to_owned();
    let spec = ModelSpec::of_tensors("plus", 1, Task::Seq2seq, "onnx", Arc::new(model));
    let error = Engine::new(EngineOptions::default()).add_model(spec).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnsupportedModel);
    assert!(error.message.contains("'logits'"), "{error}");
}

/// Gives the same tensors, whatever it is given, and checks the mask.
#[derive(Debug)]
struct Fixed {
    signature: TensorSignature,
    answer: Vec<Tensor>,
}

impl TensorModel for Fixed {
    fn signature(&self) -> &TensorSignature {
        &self.signature
    }

    fn run(&self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>> {
        let mask: Vec<i64> = inputs[1].numbers(i64::from_le_bytes).unwrap().collect();
        assert_eq!((inputs[1].shape(), &mask[..]), (&[2, 3][..], &[1, 1, 1, 1, 0, 0][..]));
        Ok(self.answer.clone())
    }
}

/// What two rows are answered by a model that gives these tokens, lengths and texts.
fn answered(tokens: &[usize], lengths: &[i32], texts: &[&[u8]]) -> Result<SequenceResponse> {
    let zeros = vec![0; 8 * tokens.iter().product::<usize>()];
    let lengths_data: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
    let answer = vec![
        Tensor::new("tokens", Datatype::Int64, tokens.to_vec(), zeros.into())?,
        Tensor::new("lengths", Datatype::Int32, vec![lengths.len()], lengths_data.into())?,
        Tensor::of_bytes("text", vec![texts.len()], texts)?,
    ];
    let info = |name: &str, datatype, shape: &[i64]| TensorInfo::new(name, datatype, shape);
    let signature = TensorSignature {
        inputs: vec![info("input_tokens", Datatype::Int32, &[-1, 3]), info("input_mask", Datatype::Int64, &[-1, 3])],
        outputs: vec![
            info("tokens", Datatype::Int64, &[-1, -1]),
            info("lengths", Datatype::Int32, &[-1]),
            info("text", Datatype::Bytes, &[-1]),
        ],
        batch_max: 4,
    };
    let spec = ModelSpec::of_tensors("fixed", 1, Task::Seq2seq, "onnx", Arc::new(Fixed { signature, answer }));
    let engine = Engine::new(EngineOptions::default());
    let deployment = engine.add_model(spec)?;
    engine.predict_sequences(&deployment, &request(&[Some(&[1, 2, 3]), Some(&[4])]))
}

#[test]
fn what_a_model_answers_is_checked() {
    let sound = answered(&[2, 4], &[4, 0], &[b"a", b""]).unwrap();
    assert_eq!((sound.sequences[0].tokens.as_ref().map(Vec::len), sound.row_errors.len()), (Some(4), 0));
    assert_eq!(sound.sequences[1].tokens, Some(vec![]));
    for (lengths, texts, part) in
        [([5, 1], [&b"a"[..], b"b"], "length"), ([-1, 1], [b"a", b"b"], "length"), ([1, 1], [b"\xff", b"b"], "UTF-8")]
    {
        let response = answered(&[2, 4], &lengths, &texts).unwrap();
        assert_eq!(response.sequences[0], Sequence::default());
        assert_eq!(response.sequences[1].text.as_deref(), Some("b"));
        let error = &response.row_error(0).unwrap().error;
        assert_eq!(error.code, ErrorCode::ModelFailed);
        assert!(error.message.contains(part), "{error}");
    }
    for (tokens, lengths, texts) in [
        (&[1, 4][..], &[1, 1][..], &[&b"a"[..], b"b"][..]),
        (&[2, 4], &[1], &[b"a", b"b"]),
        (&[2, 4], &[1, 1], &[b"a"]),
    ] {
        let error = answered(tokens, lengths, texts).unwrap_err();
        assert_eq!(error.code, ErrorCode::ModelFailed, "{error}");
    }
}
