//! Small models as their libraries wrote them (tests/models/make_fixtures.py), bit for bit, and the same files damaged.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headrace_models::{AnyModel, Features, GoldenRows, GoldenValue, ModelFormat, NativeModel, load_model};
use headrace_types::{ErrorCode, Model};

const ENDINGS: [(&str, ModelFormat); 6] = [
    (".xgb.json", ModelFormat::XgboostJson),
    (".ubj", ModelFormat::XgboostUbj),
    (".txt", ModelFormat::LightgbmText),
    (".linear.json", ModelFormat::LinearJson),
    (".catboost.json", ModelFormat::CatboostJson),
    (".safetensors", ModelFormat::PipelineSafetensors),
];

struct Fixture {
    name: String,
    format: ModelFormat,
    bytes: Vec<u8>,
    golden: GoldenRows,
}

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new("../../tests/models/fixtures");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut fixtures = Vec::new();
    for path in paths {
        let file = path.file_name().unwrap().to_str().unwrap().to_string();
        let Some((name, format)) = ENDINGS.iter().find_map(|(end, format)| Some((file.strip_suffix(end)?, *format)))
        else {
            continue;
        };
        let golden = std::fs::read(folder.join(format!("{name}.golden.json"))).unwrap();
        let golden = GoldenRows::from_json(&golden).unwrap();
        fixtures.push(Fixture { name: name.to_string(), format, bytes: std::fs::read(&path).unwrap(), golden });
    }
    fixtures
}

fn flat(rows: &[Vec<Option<f64>>]) -> Vec<f64> {
    rows.iter().flatten().map(|value| value.unwrap_or(f64::NAN)).collect()
}

/// The features as the model takes them, codes in the place of texts.
fn features(golden: &GoldenRows, model: &NativeModel) -> Vec<f64> {
    let number = |(index, value): (usize, &GoldenValue)| match value {
        GoldenValue::Missing(()) => f64::NAN,
        GoldenValue::Number(number) => *number,
        GoldenValue::Text(text) => model.vocabulary(index % model.features_count()).unwrap().code(Some(text)).unwrap(),
    };
    golden.features.iter().flatten().enumerate().map(number).collect()
}

/// Units in the last place between two scores, in the precision of the model's trainer.
fn ulps(format: ModelFormat, one: f64, other: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation)]
    if matches!(format, ModelFormat::XgboostJson | ModelFormat::XgboostUbj) {
        u64::from((one as f32).to_bits().abs_diff((other as f32).to_bits()))
    } else {
        one.to_bits().abs_diff(other.to_bits())
    }
}

#[test]
fn trees_give_their_librarys_margins_bit_for_bit_and_its_scores_within_the_bound() {
    let mut trees = 0;
    for Fixture { name, format, bytes, golden } in fixtures() {
        // The order of their sums is not defined; the golden row gate holds them to their bound.
        if format == ModelFormat::LinearJson || ["sklearn_logistic", "sklearn_network"].contains(&name.as_str()) {
            continue;
        }
        trees += 1;
        let model = load_model(format, &bytes).unwrap();
        let mut values = vec![0.0; golden.margins.len() * model.outputs_count()];
        model.margins(&features(&golden, &model), golden.features.len(), &mut values).unwrap();
        for (value, expected) in values.iter().zip(flat(&golden.margins)) {
            assert_eq!(value.to_bits(), expected.to_bits(), "{name}: margin {value:?} for {expected:?}");
        }
        model.scores(&mut values);
        let bound = match format {
            ModelFormat::XgboostJson | ModelFormat::XgboostUbj => 1,
            // CatBoost's exponential function is its own.
            ModelFormat::CatboostJson => 8,
            _ => 2,
        };
        for (value, expected) in values.iter().zip(flat(&golden.scores)) {
            assert!(ulps(format, *value, expected) <= bound, "{name}: score {value:?} for {expected:?}");
        }
    }
    assert!(trees >= 20, "only {trees} tree models were found");
}

#[test]
fn threads_change_no_bit_of_a_prepared_model() {
    for Fixture { name, format, bytes, golden } in fixtures() {
        if format != ModelFormat::PipelineSafetensors {
            continue;
        }
        let model = load_model(format, &bytes).unwrap();
        let features = features(&golden, &model).repeat(12);
        let rows = 12 * golden.features.len();
        let mut alone = vec![0.0; rows * model.outputs_count()];
        let mut spread = alone.clone();
        model.margins_of(Features::Float64(&features), rows, &mut alone, 1).unwrap();
        model.margins_of(Features::Float64(&features), rows, &mut spread, 3).unwrap();
        assert_eq!(alone, spread, "{name}");
        if model.check_explainable().is_err() {
            continue;
        }
        let mut alone = vec![0.0; rows * model.outputs_count() * (model.features_count() + 1)];
        let mut spread = alone.clone();
        model.contributions_of(Features::Float64(&features), rows, &mut alone, 1).unwrap();
        model.contributions_of(Features::Float64(&features), rows, &mut spread, 3).unwrap();
        assert!(alone.iter().zip(&spread).all(|(one, other)| one.to_bits() == other.to_bits()), "{name}");
    }
}

#[test]
fn every_fixture_passes_the_golden_row_gate_and_a_changed_row_does_not() {
    for Fixture { name, format, bytes, golden } in fixtures() {
        let model = AnyModel::from(load_model(format, &bytes).unwrap());
        golden.replay(&model).unwrap_or_else(|error| panic!("{name}: {error}"));
        for row in [0, golden.margins.len() - 1] {
            let mut changed = golden.clone();
            let margin = changed.margins[row][0].unwrap();
            changed.margins[row][0] = Some(margin + 1e-7 * margin.abs().max(1.0));
            let error = changed.replay(&model).unwrap_err();
            assert_eq!(error.code, ErrorCode::GoldenRowMismatch, "{name}");
            assert!(error.message.contains(&format!("golden row {row}, output 0: the margin is")), "{error}");
        }
        let mut changed = golden.clone();
        changed.scores[1][0] = changed.scores[1][0].map(|score| score * 1.001 + 1e-3);
        assert!(changed.replay(&model).unwrap_err().message.contains("golden row 1, output 0: the score is"), "{name}");
        let mut short = golden.clone();
        short.margins.pop();
        assert!(short.replay(&model).unwrap_err().message.contains("golden 'margins' has 47 rows"), "{name}");
    }
}

/// Loads what may be anything; what loads is also asked.
fn load_and_ask(format: ModelFormat, bytes: &[u8]) -> bool {
    let Ok(model) = load_model(format, bytes) else { return false };
    ask(&model);
    true
}

fn ask(model: &NativeModel) {
    const ROWS: usize = 5;
    let (features_count, outputs_count) = (model.features_count(), model.outputs_count());
    if features_count.max(outputs_count) > 10_000 {
        return;
    }
    let values = [0.0, 1.0, f64::NAN, f64::INFINITY, -3.5];
    let features: Vec<f64> = values.iter().flat_map(|&value| std::iter::repeat_n(value, features_count)).collect();
    let mut margins = vec![0.0; ROWS * outputs_count];
    model.margins_of(Features::Float64(&features), ROWS, &mut margins, 1).unwrap();
    model.scores(&mut margins);
}

/// One damaged copy: cut off, bytes changed, or a piece repeated or removed.
fn damage(bytes: &[u8], random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    match random(4) {
        0 => damaged.truncate(random(bytes.len())),
        1 => {
            let begin = random(damaged.len());
            let end = (begin + random(64)).min(damaged.len());
            let piece: Vec<u8> = damaged.drain(begin..end).collect();
            if random(2) == 0 {
                let at = random(damaged.len() + 1);
                damaged.splice(at..at, piece.iter().chain(&piece).copied());
            }
        }
        _ => {
            for _ in 0..=random(4) {
                let at = random(damaged.len());
                // Digits and signs keep a text model readable for longer, so that deeper checks are reached.
                damaged[at] = if random(2) == 0 { b"0123456789-.eE,"[random(15)] } else { random(256) as u8 };
            }
        }
    }
    damaged
}

/// `Some` copies, or as many as fit into the time.
fn damage_all(copies: Option<usize>, time: Duration, mut seed: u64) -> usize {
    let mut random = move |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound.max(1)
    };
    let (fixtures, begin) = (fixtures(), Instant::now());
    let (mut tried, mut loaded) = (0, 0);
    while copies.map_or(begin.elapsed() < time, |copies| tried < copies * fixtures.len()) {
        for Fixture { name, format, bytes, .. } in &fixtures {
            let damaged = damage(bytes, &mut random);
            tried += 1;
            match std::panic::catch_unwind(|| load_and_ask(*format, &damaged)) {
                Ok(is_loaded) => loaded += usize::from(is_loaded),
                Err(_) => {
                    let kept = std::env::temp_dir().join(format!("headrace-attack-{name}-{tried}"));
                    std::fs::write(&kept, &damaged).unwrap();
                    panic!(
                        "{name}: a damaged copy panicked; it is in {}, move it to tests/attacks/kept",
                        kept.display()
                    );
                }
            }
        }
    }
    assert!(loaded > 0 && loaded < tried, "{loaded} of {tried} damaged models were loaded");
    tried
}

#[test]
fn damaged_models_are_refused_or_evaluated_and_never_panic() {
    damage_all(Some(400), Duration::ZERO, 1);
}

/// For a longer search: `HEADRACE_FUZZ_SECONDS=60 cargo test -p headrace-models --test fixtures -- --ignored`.
#[test]
#[ignore = "runs for HEADRACE_FUZZ_SECONDS"]
fn damaged_models_for_a_time() {
    let seconds = std::env::var("HEADRACE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(damage_all(None, Duration::from_secs(seconds), seed) > 0, "seed {seed}");
}
