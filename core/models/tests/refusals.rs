//! What each loader refuses, and that it says why.
#![allow(clippy::unwrap_used)]

use headrace_models::{ModelFormat, load_model};
use headrace_types::ErrorCode;
use serde_json::{Value, json};

fn fixture(name: &str) -> String {
    let folder = "../../tests/models/fixtures";
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

fn assert_refused(format: ModelFormat, bytes: &[u8], code: ErrorCode, message: &str) {
    let error = load_model(format, bytes).err().unwrap_or_else(|| panic!("loaded, '{message}' was expected"));
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(message), "'{message}' was expected: {error}");
    assert!(!error.hint.is_empty());
}

const MODEL: &str = "/learner/gradient_booster/model";
const TREE: &str = "/learner/gradient_booster/model/trees/1";

#[test]
fn xgboost_models_are_refused_by_name() {
    let good: Value = serde_json::from_str(&fixture("xgboost_binary.xgb.json")).unwrap();
    let nodes = good.pointer(&format!("{TREE}/left_children")).unwrap().as_array().unwrap().len();
    let corrupt = ErrorCode::CorruptModel;
    let unsupported = ErrorCode::UnsupportedModel;
    let cases = [
        ("/learner/objective/name".to_string(), json!("multi:mystery"), unsupported, "'multi:mystery'"),
        ("/learner/gradient_booster/name".into(), json!("gbforest"), unsupported, "'gbforest'"),
        ("/learner/gradient_booster/name".into(), json!("gblinear"), corrupt, "'weights' is missing"),
        (format!("{TREE}/tree_param/size_leaf_vector"), json!("3"), corrupt, "tree 1: its leaves hold 3 values"),
        ("/learner/learner_model_param/base_score".into(), json!("2E0"), corrupt, "'2E0' cannot be the base score"),
        ("/learner/learner_model_param/base_score".into(), json!("[5E-1,5E-1]"), corrupt, "2 base scores for 1"),
        ("/learner/learner_model_param/num_feature".into(), json!("-1"), corrupt, "'num_feature' is not a count"),
        ("/learner/learner_model_param/num_feature".into(), json!("1"), corrupt, "the model has 1"),
        ("/learner/learner_model_param/num_feature".into(), json!("99999999999"), corrupt, "99999999999 features"),
        ("/learner/learner_model_param/num_class".into(), json!("99999999999"), corrupt, "99999999999 outputs"),
        (format!("{MODEL}/gbtree_model_param/num_trees"), json!("4"), corrupt, "says 4 trees, lists 5"),
        (format!("{MODEL}/tree_info/1"), json!(1), corrupt, "tree 1 has no output"),
        (format!("{TREE}/id"), json!(0), corrupt, "two trees have the id 0"),
        (format!("{TREE}/left_children/0"), json!(nodes), corrupt, "tree 1: node 0 has child"),
        (format!("{TREE}/left_children/0"), json!(0), corrupt, "tree 1: node 0 has more than one parent"),
        (format!("{TREE}/right_children/0"), json!(1), corrupt, "tree 1: node 1 has more than one parent"),
        (format!("{TREE}/right_children/0"), json!(1.5), corrupt, "node 0 has 1.5 as its right child"),
        (format!("{TREE}/right_children/0"), json!(-7), corrupt, "node 0 has -7 as its right child"),
        (format!("{TREE}/split_indices/0"), json!(5), corrupt, "node 0 tests feature 5, the model has 5"),
        (format!("{TREE}/split_conditions"), json!([1.0]), corrupt, "'split_conditions' has 1 entries"),
        (format!("{TREE}/split_conditions"), json!("x"), corrupt, "'split_conditions' is a string"),
        (format!("{TREE}/split_type/0"), json!(1), corrupt, "node 0 has no categories"),
        (format!("{TREE}/categories_nodes"), json!([0]), corrupt, "differ in length"),
        (TREE.to_string(), json!(null), corrupt, "stands where an object"),
        ("/learner".into(), json!(null), corrupt, "'learner' is missing"),
    ];
    for (pointer, value, code, message) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(&pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        assert_refused(ModelFormat::XgboostJson, bad.to_string().as_bytes(), code, message);
    }
    let text = good.to_string();
    assert_refused(ModelFormat::XgboostJson, &text.as_bytes()[..text.len() / 2], corrupt, "not JSON");
    assert_refused(ModelFormat::XgboostUbj, text.as_bytes(), corrupt, "UBJSON, byte");
}

#[test]
fn category_sets_out_of_proportion_are_refused() {
    let mut bad: Value = serde_json::from_str(&fixture("xgboost_binary.xgb.json")).unwrap();
    let tree = bad.pointer_mut(TREE).unwrap();
    // Three bytes of input each would ask for two megabytes.
    tree["categories_nodes"] = json!(vec![0; 100]);
    tree["categories_segments"] = json!(vec![0; 100]);
    tree["categories_sizes"] = json!(vec![1; 100]);
    tree["categories"] = json!([16_777_215]);
    assert_refused(
        ModelFormat::XgboostJson,
        bad.to_string().as_bytes(),
        ErrorCode::UnsupportedModel,
        "category sets take more than",
    );
}

#[test]
fn lightgbm_models_are_refused_by_name() {
    let good = fixture("lightgbm_multiclass.txt");
    let corrupt = ErrorCode::CorruptModel;
    let unsupported = ErrorCode::UnsupportedModel;
    let line = |start: &str| good.lines().find(|line| line.starts_with(start)).unwrap().to_string();
    let cases = [
        ("tree".to_string(), "forest".to_string(), corrupt, "the first line is not 'tree'"),
        ("version=v4".into(), "version=v9".into(), unsupported, "version 'v9'"),
        ("end of trees".into(), "end of".into(), corrupt, "'end of trees' is missing"),
        ("Tree=3".into(), "Tree=4".into(), corrupt, "'Tree=4' stands where tree 3 begins"),
        ("num_tree_per_iteration=3".into(), "num_tree_per_iteration=0".into(), corrupt, "is 0"),
        ("num_tree_per_iteration=3".into(), "num_tree_per_iteration=4".into(), corrupt, "15 trees cannot be spread"),
        ("max_feature_idx=4".into(), "max_feature_idx=1".into(), corrupt, "the model has 2"),
        ("max_feature_idx=4".into(), "max_feature_idx=18446744073709551615".into(), corrupt, "out of range"),
        (line("objective="), "objective=mystery".into(), unsupported, "'mystery'"),
        (line("num_leaves="), "num_leaves=0".into(), corrupt, "tree 0: 'num_leaves' is 0"),
        (line("num_leaves="), "num_leaves=18446744073709551615".into(), corrupt, "tree 0: 'leaf_value' has"),
        (line("is_linear="), "is_linear=1".into(), unsupported, "linear_tree"),
        (line("threshold="), line("threshold=").replacen('=', "=x", 1), corrupt, "in 'threshold' is not a number"),
        (line("threshold="), "threshold=".into(), corrupt, "'threshold' has 0 entries"),
        (line("left_child="), line("left_child=").replacen('=', "=0 ", 1), corrupt, "'left_child' has"),
        (line("num_cat="), "num_cat=18446744073709551615".into(), corrupt, "'num_cat' is out of range"),
        (line("cat_threshold="), "cat_threshold=1 2 3 4 5 6 7 8 9".into(), corrupt, "'cat_threshold' has 9 entries"),
    ];
    for (from, to, code, message) in cases {
        assert!(good.contains(&from));
        assert_refused(ModelFormat::LightgbmText, good.replacen(&from, &to, 1).as_bytes(), code, message);
    }
    assert_refused(ModelFormat::LightgbmText, b"\xff\xfe", corrupt, "not UTF-8");
    assert_refused(ModelFormat::LightgbmText, b"", corrupt, "the first line");
}

#[test]
fn lightgbm_trees_with_loops_or_strangers_are_refused() {
    let tree = "tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=0\n\nTree=0\nnum_leaves=3\n\
                split_feature=0 0\nthreshold=1 2\ndecision_type=2 2\nleft_child=LEFT\n\
                right_child=-1 -2\nleaf_value=1 2 3\nend of trees\n";
    assert!(load_model(ModelFormat::LightgbmText, tree.replace("LEFT", "1 -3").as_bytes()).is_ok());
    for (left, message) in [
        ("0 -3", "node 0 has more than one parent"),
        ("1 0", "node 0 has more than one parent"),
        ("1 -1", "more than one parent"),
        ("1 -4", "node 1 has child -4 of 2 nodes"),
        ("2 -3", "node 0 has child 2 of 2 nodes"),
        ("1 -9223372036854775808", "node 1 has child -9223372036854775808"),
    ] {
        let text = tree.replace("LEFT", left);
        assert_refused(ModelFormat::LightgbmText, text.as_bytes(), ErrorCode::CorruptModel, message);
    }
    let text = tree.replace("LEFT", "1 -3").replace("threshold=1 2", "threshold=nan 2");
    assert_refused(ModelFormat::LightgbmText, text.as_bytes(), ErrorCode::CorruptModel, "NaN as its threshold");
    let text = tree.replace("LEFT", "1 -3").replace("decision_type=2 2", "decision_type=14 2");
    assert_refused(ModelFormat::LightgbmText, text.as_bytes(), ErrorCode::CorruptModel, "decision type 14");
    let text = tree.replace("LEFT", "1 -3").replace("decision_type=2 2", "decision_type=1 2");
    assert_refused(ModelFormat::LightgbmText, text.as_bytes(), ErrorCode::CorruptModel, "no category set of its own");
}

#[test]
fn catboost_models_are_refused_by_name() {
    let good: Value = serde_json::from_str(&fixture("catboost_multiclass.catboost.json")).unwrap();
    let (corrupt, unsupported) = (ErrorCode::CorruptModel, ErrorCode::UnsupportedModel);
    let split = "/oblivious_trees/1/splits/0";
    let cases = [
        ("/model_info/params/loss_function/type".to_string(), json!("RMSEWithUncertainty"), unsupported, "Uncertainty"),
        ("/scale_and_bias/0".into(), json!(0.3), unsupported, "its scale is 0.3"),
        ("/scale_and_bias/1".into(), json!([0, 0]), corrupt, "a leaf has 3 values, 2 were expected"),
        ("/features_info/text_features".into(), json!([{}]), unsupported, "text features"),
        ("/features_info/float_features/0/nan_value_treatment".into(), json!("AsOne"), corrupt, "'AsOne'"),
        ("/features_info/float_features/1/feature_index".into(), json!(0), corrupt, "another's place"),
        ("/features_info/float_features/1/flat_feature_index".into(), json!(1e15), corrupt, "features, at most"),
        (
            "/features_info/float_features/1/flat_feature_index".into(),
            json!(0),
            corrupt,
            "two features have the place 0",
        ),
        (
            "/features_info/categorical_features/0/flat_feature_index".into(),
            json!(1),
            corrupt,
            "two features have the place 1",
        ),
        // The number could be told by its hash; the text that is written alike could not.
        ("/features_info/categorical_features/0/values".into(), json!([]), unsupported, "that its list lacks"),
        (format!("{split}/split_type"), json!("OnlineCtr"), unsupported, "statistics of the training set (CTR)"),
        (format!("{split}/split_type"), json!("Text"), unsupported, "splits of the type 'Text'"),
        (split.into(), json!({"split_type": "FloatFeature", "float_feature_index": 99}), corrupt, "names feature 99"),
        (
            split.into(),
            json!({"split_type": "OneHotFeature", "cat_feature_index": 0, "value": 1}),
            unsupported,
            "has a category that its list lacks",
        ),
        (
            split.into(),
            json!({"split_type": "OneHotFeature", "cat_feature_index": 0, "value": 1e12}),
            corrupt,
            "not the hash of a category",
        ),
        (
            "/oblivious_trees/1/leaf_values".into(),
            json!([1, 2, 3]),
            corrupt,
            "tree 1: it has 3 splits and 3 leaf values",
        ),
        ("/oblivious_trees/1".into(), json!(null), corrupt, "tree 1: null stands where an object"),
    ];
    for (pointer, value, code, message) in cases {
        let mut bad = good.clone();
        if let Some(place) = bad.pointer_mut(&pointer) {
            *place = value;
        } else {
            bad["features_info"]["text_features"] = value;
        }
        assert_refused(ModelFormat::CatboostJson, bad.to_string().as_bytes(), code, message);
    }
}

/// A pipeline file of one linear estimator of two inputs, after `change` was made to its header and its description.
fn pipeline(change: impl Fn(&mut Value, &mut Value)) -> Vec<u8> {
    let mut description = json!({
        "format": 1, "inputs": [{"name": "a"}, {}], "estimator": {"kind": "linear"}, "link": "identity",
        "stages": [{"columns": [{"from": 0, "operations": [{"fill": 0.5}]}, {"from": 1}]}],
    });
    let mut header = json!({
        "linear.weights": {"dtype": "F64", "shape": [1, 2], "data_offsets": [0, 16]},
        "linear.intercept": {"dtype": "F64", "shape": [1], "data_offsets": [16, 24]},
        "__metadata__": {},
    });
    change(&mut header, &mut description);
    if header["__metadata__"].is_object() {
        header["__metadata__"]["headrace.pipeline"] = json!(description.to_string());
    }
    let header = header.to_string();
    let values: Vec<u8> = [2.0f64, -1.0, 0.25].iter().flat_map(|value| value.to_le_bytes()).collect();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

#[test]
fn pipelines_are_refused_by_name() {
    use headrace_types::Model;

    let sound = load_model(ModelFormat::PipelineSafetensors, &pipeline(|_, _| {})).unwrap();
    let mut margins = [0.0; 2];
    sound.margins(&[1.0, 1.0, f64::NAN, 2.0], 2, &mut margins).unwrap();
    assert_eq!(margins, [1.25, -0.75]);
    assert_eq!(sound.margins(&[1.0], 2, &mut margins).unwrap_err().code, ErrorCode::LengthMismatch);

    type Change = fn(&mut Value, &mut Value);
    let corrupt = ErrorCode::CorruptModel;
    let cases: [(Change, ErrorCode, &str); 24] = [
        (|_, of| of["format"] = json!(3), ErrorCode::NewerFormat, "has format 3"),
        (|_, of| of["format"] = json!(0), ErrorCode::NewerFormat, "has format 0"),
        (
            |_, of| of["inputs"][1] = json!({"categories": ["x", "y", "x"]}),
            corrupt,
            "input 1: the category 'x' stands at",
        ),
        (|_, of| of["inputs"][1] = json!({"categories": ["x", 1]}), corrupt, "expected a string"),
        (|_, of| of["inputs"][1] = json!({"categories": ["x"], "unknown": "zero"}), corrupt, "unknown variant `zero`"),
        (|_, of| of["inputs"][1] = json!({"categories": ["x"], "sorted": true}), corrupt, "unknown field `sorted`"),
        (|_, of| of["estimator"] = json!({"kind": "svm"}), corrupt, "unknown variant `svm`"),
        (|_, of| of["link"] = json!("probit"), corrupt, "unknown variant `probit`"),
        (|_, of| of["more"] = json!(1), corrupt, "unknown field `more`"),
        (|_, of| of["inputs"] = json!([]), corrupt, "made from column 0 of 0"),
        (|_, of| of["stages"] = json!([{"columns": []}]), corrupt, "stage 0: it gives no columns"),
        (|_, of| of["stages"] = json!([{"normalize": "l3"}]), corrupt, "unknown variant `l3`"),
        (|_, of| of["stages"][0]["columns"][1]["from"] = json!(2), corrupt, "is made from column 2 of 2"),
        (|_, of| of["stages"][0]["columns"][0]["operations"] = json!([{"clip": [2, 1]}]), corrupt, "out of order"),
        (|_, of| of["stages"][0]["columns"][0]["operations"] = json!([{"bin": [2, 1]}]), corrupt, "out of order"),
        (|_, of| of["stages"][0]["columns"][0]["operations"] = json!([{"root": 1}]), corrupt, "unknown variant `root`"),
        (|_, of| of["stages"] = json!([{"columns": [{"from": 0}]}]), corrupt, "2 columns for 1 features"),
        (|header, _| header["__metadata__"] = json!(null), corrupt, "its metadata lack 'headrace.pipeline'"),
        (|header, _| header["linear.weights"]["dtype"] = json!("I64"), corrupt, "'linear.weights' is I64"),
        (|header, _| header["linear.weights"]["shape"] = json!([2]), corrupt, "F64 of 2 dimensions was expected"),
        (|header, _| header["linear.weights"]["shape"] = json!([9, 9]), corrupt, "not a safetensors file"),
        (|header, _| header["linear.intercept"]["data_offsets"] = json!([8, 16]), corrupt, "not a safetensors file"),
        (|header, _| header["linear.intercept"]["data_offsets"] = json!([16, 32]), corrupt, "not a safetensors file"),
        (
            |_, of| of["estimator"] = json!({"kind": "network", "precision": "float64", "activations": ["relu"]}),
            corrupt,
            "'network.0.weights' is missing",
        ),
    ];
    for (change, code, message) in cases {
        assert_refused(ModelFormat::PipelineSafetensors, &pipeline(change), code, message);
    }
}

#[test]
fn linear_models_are_refused_by_name() {
    for (text, code, message) in [
        (r#"{"format": 2}"#, ErrorCode::NewerFormat, "format 2"),
        (r#"{"format": 1, "link": "probit"}"#, ErrorCode::UnsupportedModel, "'probit'"),
        (r#"{"format": 1, "link": "identity", "intercept": [1], "weights": []}"#, ErrorCode::CorruptModel, "0 rows"),
        (r#"{"format": 1, "link": "identity", "intercept": [1], "weights": [[]]}"#, ErrorCode::CorruptModel, "row 0"),
        (
            r#"{"format": 1, "link": "identity", "intercept": [1, 2], "weights": [[1], [1, 2]]}"#,
            ErrorCode::CorruptModel,
            "row 1",
        ),
    ] {
        assert_refused(ModelFormat::LinearJson, text.as_bytes(), code, message);
    }
    let error = ModelFormat::from_name("pickle").unwrap_err();
    assert_eq!(error.code, ErrorCode::UnsupportedModel);
    assert!(
        error.hint.contains("xgboost-json, xgboost-ubj, lightgbm-text, linear-json, pipeline-safetensors"),
        "{error}"
    );
}

#[test]
fn texts_of_a_pipeline_have_the_codes_of_their_places() {
    use headrace_types::Model;

    let categories = |input: Value| {
        let bytes = pipeline(|_, of| (of["format"], of["inputs"][1]) = (json!(2), input.clone()));
        load_model(ModelFormat::PipelineSafetensors, &bytes).unwrap()
    };
    let model = categories(json!({"categories": ["b", "", "\u{fc}"]}));
    assert!(model.vocabulary(0).is_none() && model.vocabulary(2).is_none());
    let vocabulary = model.vocabulary(1).unwrap();
    assert_eq!(["b", "", "\u{fc}", "u"].map(|text| vocabulary.code(Some(text)).unwrap()), [0.0, 1.0, 2.0, -1.0]);
    assert!(vocabulary.code(None).unwrap().is_nan() && !vocabulary.takes_codes);
    assert_eq!(model.text_inputs().collect::<Vec<_>>(), [1]);
    let strict = categories(json!({"categories": ["b"], "unknown": "error", "missing": "error"}));
    let vocabulary = strict.vocabulary(1).unwrap();
    assert_eq!(
        (vocabulary.code(Some("b")), vocabulary.code(Some("c")), vocabulary.code(None)),
        (Some(0.0), None, None)
    );
}

#[test]
fn categories_of_lightgbm_are_those_of_the_columns_that_are_named() {
    let good = fixture("lightgbm_text.txt");
    let with = |lists: &str, columns: &str| {
        let (head, _) = good.split_once("\nheadrace_category_columns:").unwrap();
        format!("{head}{columns}\npandas_categorical:{lists}\n")
    };
    let load = |text: &str| load_model(ModelFormat::LightgbmText, text.as_bytes()).unwrap();
    assert_eq!(load(&good).text_inputs().collect::<Vec<_>>(), [1, 3]);
    let columns = "\nheadrace_category_columns:1,3";
    assert_eq!(load(&with(r#"[["a"], [1, 2]]"#, columns)).text_inputs().collect::<Vec<_>>(), [1]);
    assert_eq!(load(&with(r#"[["a"]]"#, columns)).text_inputs().count(), 0);
    assert_eq!(load(&with("null", columns)).text_inputs().count(), 0);
    // As LightGBM writes it when a column of categories is not among the categorical features that it was told of.
    let features = "\n[categorical_feature: 0,2]\n";
    assert_eq!(load(&with(r#"[["a"], ["b"]]"#, features)).text_inputs().count(), 0);
    let corrupt = ErrorCode::CorruptModel;
    for (lists, columns, message) in [
        (r#"[["a", "a"], ["b"]]"#, columns, "feature 1: the category 'a' stands at the places 0 and 1"),
        (r#"[["a"], "b"]"#, columns, "'pandas_categorical': invalid type"),
        (r#"[["a"], ["b"]]"#, "\nheadrace_category_columns:0,0", "two lists of categories of feature 0"),
        ("[[", columns, "'pandas_categorical': EOF"),
        (r#"[["a"], ["b"]]"#, "\nheadrace_category_columns:1,x", "is no list of features"),
        (r#"[["a"], ["b"]]"#, "\nheadrace_category_columns:1,99999999999", "categories of input 99999999999"),
    ] {
        assert_refused(ModelFormat::LightgbmText, with(lists, columns).as_bytes(), corrupt, message);
    }
}

#[test]
fn categories_of_xgboost_are_checked() {
    use headrace_types::{Model, Unknown};

    let good: Value = serde_json::from_str(&fixture("xgboost_text.xgb.json")).unwrap();
    let load = |document: &Value| load_model(ModelFormat::XgboostJson, document.to_string().as_bytes());
    let model = load(&good).unwrap();
    assert_eq!(model.text_inputs().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(model.vocabulary(1).unwrap().unknown, Unknown::Refused);
    let list = "/learner/gradient_booster/model/cats/enc/1";
    let corrupt = ErrorCode::CorruptModel;
    for (offsets, values, message) in [
        (json!([0, 1, 3]), json!([97, 98]), "a category is said to be at 1 to 3 of 2"),
        (json!([0, 2, 1]), json!([97, 98]), "a category is said to be at 2 to 1 of 2"),
        (json!([0, -1]), json!([97]), "a category is said to be at 0 to -1 of 1"),
        (json!([0, 1, 2]), json!([97, 97]), "categories of feature 1: the category 'a' stands at"),
        (json!("x"), json!([97]), "'offsets' is a string"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(list).unwrap() = json!({"offsets": offsets, "values": values});
        assert_refused(ModelFormat::XgboostJson, bad.to_string().as_bytes(), corrupt, message);
    }
    let mut cut = good.clone();
    *cut.pointer_mut(list).unwrap() = json!({"offsets": [0, 1], "values": [-61]});
    assert_eq!(load(&cut).unwrap().text_inputs().collect::<Vec<_>>(), [3], "half a letter is no text");
}
