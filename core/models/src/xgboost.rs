//! XGBoost's model, in its JSON or UBJSON form.
//!
//! Margins carry XGBoost's own bits: the base score (through the objective's link) first, then each tree's leaf, all in
//! float32. A DART model's weights are multiplied into the leaves in float32, as `Booster.predict` does; its
//! `inplace_predict` rounds otherwise and may differ from it, and so from us, in the last bits.

use headrace_cpu::{Comparison, Ensemble, Precision};
use headrace_types::{Result, Unknown, Vocabulary};

use crate::category_words::CategoryWords;
use crate::document::{Document, corrupt, unsupported, whole};
use crate::linear::Linear;
use crate::link::{Link, LinkKind};
use crate::parsed::{Body, Parsed};
use crate::vocabularies::Vocabularies;
use crate::xgboost_tree::{Leaves, read_tree};

/// Margins that one row may get.
pub(crate) const OUTPUTS_MAX: usize = 1 << 16;

/// How the base score, which the file holds on the scale of the answer, becomes a margin.
#[derive(Debug, Clone, Copy)]
enum BaseLink {
    Identity,
    Logit,
    Log,
}

pub(crate) fn parse(document: &Document) -> Result<Parsed> {
    let header = Header::read(document)?;
    let booster = header.booster;
    let (body, vocabularies) = match booster.text("name")? {
        "gblinear" => (Body::Linear(linear(booster.get("model")?, &header)?), Vocabularies::default()),
        _ => (Body::Trees(ensemble(&header)?), vocabularies(booster)?),
    };
    Ok(Parsed { vocabularies, ..Parsed::new(body, header.link) })
}

/// What the file says of every booster.
struct Header<'a> {
    booster: &'a Document,
    features_count: usize,
    outputs_count: usize,
    /// A margin for each output.
    base: Vec<f64>,
    link: Link,
}

impl<'a> Header<'a> {
    fn read(document: &'a Document) -> Result<Self> {
        let learner = document.get("learner")?;
        let (kind, base_link) = objective(learner.get("objective")?.text("name")?)?;
        let parameters = learner.get("learner_model_param")?;
        let outputs_count = outputs_count(parameters)?;
        Ok(Self {
            booster: learner.get("gradient_booster")?,
            features_count: parameters.count("num_feature")?,
            outputs_count,
            base: base_scores(parameters.text("base_score")?, outputs_count, base_link)?,
            link: Link::new(kind, Precision::Float32),
        })
    }
}

fn ensemble(header: &Header<'_>) -> Result<Ensemble> {
    let (model, weights) = gradient_booster(header.booster)?;
    Ok(Ensemble {
        features_precision: Precision::Float32,
        precision: Precision::Float32,
        comparison: Comparison::Less,
        features_count: header.features_count,
        outputs_count: header.outputs_count,
        base: header.base.clone(),
        trees: trees(model, weights, header.outputs_count)?,
    })
}

/// `weights` is row-major `[features + 1, outputs]`; the last row is the bias.
#[allow(clippy::cast_possible_truncation)] // XGBoost holds weights as float32, and sums in it
fn linear(model: &Document, header: &Header<'_>) -> Result<Linear> {
    let (weights, outputs_count) = (model.numbers("weights")?, header.outputs_count);
    let expected = header.features_count.checked_add(1).and_then(|rows| rows.checked_mul(outputs_count));
    if expected != Some(weights.len()) {
        let (have, features_count) = (weights.len(), header.features_count);
        return Err(corrupt(format!(
            "it has {have} weights for {features_count} features and {outputs_count} outputs"
        )));
    }
    let (weights, bias) = weights.split_at(weights.len() - outputs_count);
    let column =
        |output: usize| weights[output..].iter().step_by(outputs_count).map(|&weight| f64::from(weight as f32));
    let weights = (0..outputs_count).take_while(|_| !weights.is_empty()).flat_map(column).collect();
    // Every output starts from the base score of the first: that is what gblinear does.
    let base = header.base[0] as f32;
    let intercept = bias.iter().map(|&bias| f64::from(bias as f32 + base)).collect();
    Linear::new(weights, intercept, Precision::Float32)
}

fn trees(model: &Document, weights: Option<&[f64]>, outputs_count: usize) -> Result<Vec<headrace_cpu::Tree>> {
    let (documents, outputs) = (model.list("trees")?, model.numbers("tree_info")?);
    let count = model.get("gbtree_model_param")?.count("num_trees")?;
    if documents.len() != count || outputs.len() != count {
        return Err(corrupt(format!(
            "the model says {count} trees, lists {} and names outputs for {}",
            documents.len(),
            outputs.len()
        )));
    }
    if weights.is_some_and(|weights| weights.len() != count) {
        return Err(corrupt(format!("'weight_drop' does not have one weight for each of {count} trees")));
    }
    let mut category_words = CategoryWords::default();
    let mut trees = vec![None; count];
    for (index, document) in documents.iter().enumerate() {
        let id = if document.find("id")?.is_some() { document.count("id")? } else { index };
        let output = outputs.get(id).copied().and_then(whole).filter(|&output| output < outputs_count);
        let output = output.ok_or_else(|| corrupt(format!("tree {index} has no output (its id is {id})")))?;
        #[allow(clippy::cast_possible_truncation)] // XGBoost holds weights as float32
        let weight = weights.map_or(1.0, |weights| weights[id] as f32);
        let leaves = Leaves { output, outputs_count, weight };
        let tree = read_tree(document, leaves, &mut category_words);
        if trees[id].replace(tree.map_err(|error| error.within(format!("tree {id}")))?).is_some() {
            return Err(corrupt(format!("two trees have the id {id}")));
        }
    }
    Ok(trees.into_iter().flatten().collect())
}

/// The tree model inside the booster, and the weights of its trees if it has any.
fn gradient_booster(booster: &Document) -> Result<(&Document, Option<&[f64]>)> {
    match booster.text("name")? {
        "gbtree" => Ok((booster.get("model")?, None)),
        "dart" => Ok((booster.get("gbtree")?.get("model")?, Some(booster.numbers("weight_drop")?))),
        other => Err(unsupported(format!("the booster is '{other}'"), "use booster = gbtree, dart or gblinear")),
    }
}

/// The categories of features that were columns of a frame, since XGBoost 3.1; it answers with an error for one that it does not know.
///
/// A list that holds more than ASCII is left alone, and its feature is given as codes: of a pandas column XGBoost counts the characters of
/// each category and takes so many bytes, so that what the file holds are not the column's texts.
///
/// # Errors
/// `corrupt_model` when the lists do not fit, or a category is there twice.
fn vocabularies(booster: &Document) -> Result<Vocabularies> {
    let (model, _) = gradient_booster(booster)?;
    let Some(categories) = model.find("cats")?.filter(|cats| matches!(cats, Document::Object(_))) else {
        return Ok(Vocabularies::default());
    };
    let Some(Document::List(lists)) = categories.find("enc")? else { return Ok(Vocabularies::default()) };
    let one = |(feature, list): (usize, &Document)| {
        let vocabulary = vocabulary(list).map(|found| found.map(|vocabulary| (feature, vocabulary)));
        vocabulary.map_err(|error| error.within(format!("the categories of feature {feature}"))).transpose()
    };
    lists.iter().enumerate().filter_map(one).collect()
}

/// `offsets` are the places in `values`, the bytes of all texts, where each text begins, and the end of the last.
fn vocabulary(list: &Document) -> Result<Option<Vocabulary>> {
    if list.find("offsets")?.is_none() {
        return Ok(None);
    }
    let (offsets, values) = (list.numbers("offsets")?, list.numbers("values")?);
    let Some(text) = values.iter().map(|&byte| whole(byte).filter(|byte| *byte < 128)).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    #[allow(clippy::cast_possible_truncation)] // below 128
    let text: String = text.into_iter().map(|byte| char::from(byte as u8)).collect();
    let word = |ends: &[f64]| {
        let range = whole(ends[0]).zip(whole(ends[1])).and_then(|(begin, end)| text.get(begin..end));
        range
            .ok_or_else(|| corrupt(format!("a category is said to be at {} to {} of {}", ends[0], ends[1], text.len())))
    };
    let words = offsets.windows(2).map(word).collect::<Result<Vec<_>>>()?;
    if words.is_empty() {
        return Ok(None);
    }
    let mut vocabulary = Vocabulary::of_words(words)?;
    vocabulary.unknown = Unknown::Refused;
    Ok(Some(vocabulary))
}

fn objective(name: &str) -> Result<(LinkKind, BaseLink)> {
    Ok(match name {
        "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:pseudohubererror"
        | "reg:absoluteerror"
        | "reg:quantileerror"
        | "rank:pairwise"
        | "rank:ndcg"
        | "rank:map"
        | "binary:logitraw" => (LinkKind::Identity, BaseLink::Identity),
        "binary:logistic" | "reg:logistic" => (LinkKind::Logistic { scale: 1.0 }, BaseLink::Logit),
        "binary:hinge" => (LinkKind::Hinge, BaseLink::Identity),
        "multi:softprob" | "multi:softmax" => (LinkKind::Softmax, BaseLink::Identity),
        "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
            (LinkKind::Exponential, BaseLink::Log)
        }
        other => {
            return Err(unsupported(
                format!("the objective is '{other}'"),
                "use one of XGBoost's objectives for regression, ranking, counts, survival or classification",
            ));
        }
    })
}

fn outputs_count(parameters: &Document) -> Result<usize> {
    let classes = parameters.count("num_class")?;
    let targets = if parameters.find("num_target")?.is_some() { parameters.count("num_target")? } else { 1 };
    if classes > 1 && targets > 1 {
        return Err(unsupported(format!("it has {classes} classes for {targets} targets"), "train one model a target"));
    }
    let outputs_count = classes.max(targets).max(1);
    if outputs_count > OUTPUTS_MAX {
        return Err(corrupt(format!("it says {outputs_count} outputs, at most {OUTPUTS_MAX} are read")));
    }
    Ok(outputs_count)
}

/// `text` is one number or, since XGBoost 3.1, a list of them: `5E-1`, `[5E-1]`, `[1E-1,2E-1]`.
fn base_scores(text: &str, outputs_count: usize, link: BaseLink) -> Result<Vec<f64>> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let mut scores = Vec::new();
    for item in inner.split(',').take(OUTPUTS_MAX + 1) {
        let score: Option<f32> = item.trim().parse().ok();
        let margin = score.map(|score| match link {
            BaseLink::Identity => score,
            BaseLink::Logit => -(1.0 / score - 1.0).ln(),
            BaseLink::Log => score.ln(),
        });
        match margin.filter(|margin| margin.is_finite()) {
            Some(margin) => scores.push(f64::from(margin)),
            None => return Err(corrupt(format!("'{item}' cannot be the base score of this objective"))),
        }
    }
    if scores.len() == 1 {
        scores.resize(outputs_count, scores[0]);
    }
    if scores.len() != outputs_count {
        return Err(corrupt(format!("it has {} base scores for {outputs_count} outputs", scores.len())));
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn covers_are_the_sums_of_hessians() {
        let bytes = include_bytes!("../../../tests/models/fixtures/xgboost_binary.xgb.json");
        let document = Document::from_json(bytes).unwrap();
        let ensemble = ensemble(&Header::read(&document).unwrap()).unwrap();
        for tree in &ensemble.trees {
            assert_eq!(tree.covers.len(), tree.nodes.len());
            for (node, cover) in tree.nodes.iter().zip(&tree.covers) {
                let headrace_cpu::Node::Split(split) = node else { continue };
                let children = tree.covers[split.left] + tree.covers[split.right];
                assert!((children - cover).abs() <= 1e-5 * cover, "{children} below {cover}");
            }
        }
    }
}
