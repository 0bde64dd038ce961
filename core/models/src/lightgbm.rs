//! LightGBM's text model (versions v2 to v4).
//!
//! Margins carry LightGBM's own bits: leaves are summed in float64 in the order of the trees. For a random forest
//! (`average_output`) the margin is the sum, as `raw_score` gives it, and the score is that of the mean.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use headrace_cpu::{Categories, Comparison, Ensemble, Missing, Node, Precision, Split, Test, Tree, ZERO_THRESHOLD};
use headrace_types::{Error, Result, Vocabulary};
use serde_json::Value;

use crate::document::{corrupt, unsupported};
use crate::link::{Link, LinkKind};
use crate::parsed::{Body, Parsed};
use crate::vocabularies::Vocabularies;
use crate::xgboost::OUTPUTS_MAX;
use crate::xgboost_tree::known_covers;

type Entries<'a> = HashMap<&'a str, &'a str>;

pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed> {
    let (ensemble, link) = read(bytes)?;
    Ok(Parsed { vocabularies: vocabularies(bytes)?, ..Parsed::new(Body::Trees(ensemble), link) })
}

fn read(bytes: &[u8]) -> Result<(Ensemble, Link)> {
    let text = std::str::from_utf8(bytes).map_err(|error| corrupt(format!("not UTF-8 text: {error}")))?;
    let sections = Sections::split(text)?;
    let header = &sections.header;
    let version = entry(header, "version")?;
    if !["v2", "v3", "v4"].contains(&version) {
        return Err(unsupported(format!("the model has version '{version}'"), "v2 to v4 are read: upgrade headrace"));
    }
    let outputs_count: usize = number(header, "num_tree_per_iteration")?;
    if outputs_count == 0 || outputs_count > OUTPUTS_MAX {
        return Err(corrupt(format!("'num_tree_per_iteration' is {outputs_count}")));
    }
    let feature_max: usize = number(header, "max_feature_idx")?;
    let features_count = feature_max.checked_add(1).ok_or_else(|| corrupt("'max_feature_idx' is out of range"))?;
    let mut trees = Vec::new();
    for (index, entries) in sections.trees.iter().enumerate() {
        let place = |error: Error| error.within(format!("tree {index}"));
        let (nodes, covers) = (read_nodes(entries).map_err(place)?, read_covers(entries).map_err(place)?);
        trees.push(Tree { covers, ..Tree::new(index % outputs_count, nodes) });
    }
    if trees.len() % outputs_count != 0 {
        return Err(corrupt(format!("{} trees cannot be spread over {outputs_count} outputs", trees.len())));
    }
    let iterations = trees.len() / outputs_count;
    let ensemble = Ensemble {
        features_precision: Precision::Float64,
        precision: Precision::Float64,
        comparison: Comparison::LessEqual,
        features_count,
        outputs_count,
        base: vec![0.0; outputs_count],
        trees,
    };
    let mut link = Link::new(objective(header.get("objective").copied().unwrap_or_default())?, Precision::Float64);
    if header.contains_key("average_output") && iterations > 0 {
        link = link.averaged_over(iterations);
    }
    Ok((ensemble, link))
}

/// The lines of a model: `key=value` before the first tree, and of each tree.
struct Sections<'a> {
    header: Entries<'a>,
    trees: Vec<Entries<'a>>,
}

impl<'a> Sections<'a> {
    fn split(text: &'a str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim);
        if lines.next() != Some("tree") {
            return Err(corrupt("the first line is not 'tree'"));
        }
        let mut sections = Self { header: Entries::new(), trees: Vec::new() };
        for line in lines {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            match key {
                "" => {}
                "end of trees" => return sections.check_count(),
                "Tree" if value == sections.trees.len().to_string() => sections.trees.push(Entries::new()),
                "Tree" => {
                    return Err(corrupt(format!("'Tree={value}' stands where tree {} begins", sections.trees.len())));
                }
                _ => {
                    let entries = sections.trees.last_mut().unwrap_or(&mut sections.header);
                    entries.insert(key, value);
                }
            }
        }
        Err(corrupt("the line 'end of trees' is missing: the file is cut off"))
    }

    fn check_count(self) -> Result<Self> {
        let expected = self.header.get("tree_sizes").map(|sizes| sizes.split_ascii_whitespace().count());
        match expected {
            Some(expected) if expected != self.trees.len() => {
                Err(corrupt(format!("'tree_sizes' lists {expected} trees, the file has {}", self.trees.len())))
            }
            _ => Ok(self),
        }
    }
}

/// The categories of features that were columns of a frame; a feature whose categories are no texts is given as codes.
///
/// `pandas_categorical` lists the categories of those columns, from the first on, without saying which features they are: the categorical
/// features of the file may be others, for a caller of the library can name them. Only the line that headrace's exporter adds tells it; of
/// a file without it all features are codes.
///
/// # Errors
/// `corrupt_model` for a list that is not JSON, or that has a category twice, and for features that are none or listed twice.
fn vocabularies(bytes: &[u8]) -> Result<Vocabularies> {
    let mut lists: Vec<Vec<Value>> = Vec::new();
    let mut columns = Vec::new();
    for line in bytes.rsplit(|&byte| byte == b'\n').take_while(|line| *line != b"end of trees") {
        let line = std::str::from_utf8(line).unwrap_or_default().trim();
        if let Some(text) = line.strip_prefix("pandas_categorical:") {
            let wrong = |error: serde_json::Error| corrupt(format!("'pandas_categorical': {error}"));
            lists = serde_json::from_str::<Option<_>>(text).map_err(wrong)?.unwrap_or_default();
        } else if let Some(text) = line.strip_prefix(COLUMNS_KEY) {
            columns = places(text)?;
        }
    }
    if columns.len() != lists.len() {
        columns.clear();
    }
    let of_text = columns.iter().zip(&lists).filter_map(|(&column, list)| {
        let words = list.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
        let vocabulary = Vocabulary::of_words(words).map(|vocabulary| (column, vocabulary));
        Some(vocabulary.map_err(|error| error.within(format!("feature {column}"))))
    });
    of_text.collect()
}

/// Before the list of the features that are columns of categories; headrace's exporter adds the line.
const COLUMNS_KEY: &str = "headrace_category_columns:";

fn places(text: &str) -> Result<Vec<usize>> {
    let places = text.trim().split(',').filter(|place| !place.is_empty()).map(|place| place.trim().parse().ok());
    let places: Vec<usize> = places
        .collect::<Option<_>>()
        .ok_or_else(|| corrupt(format!("'{}' is no list of features", shortened(text))))?;
    let mut seen = HashSet::new();
    match places.iter().find(|place| !seen.insert(**place)) {
        Some(twice) => Err(corrupt(format!("it has two lists of categories of feature {twice}"))),
        None => Ok(places),
    }
}

fn entry<'a>(entries: &Entries<'a>, key: &str) -> Result<&'a str> {
    entries.get(key).copied().ok_or_else(|| corrupt(format!("'{key}' is missing")))
}

fn number<T: FromStr>(entries: &Entries<'_>, key: &str) -> Result<T> {
    let text = entry(entries, key)?;
    text.parse().map_err(|_| corrupt(format!("'{key}' is '{}'", shortened(text))))
}

/// Exactly `count` numbers, separated by blanks.
fn numbers<T: FromStr>(entries: &Entries<'_>, key: &str, count: usize) -> Result<Vec<T>> {
    let mut numbers = Vec::new();
    for item in entry(entries, key)?.split_ascii_whitespace() {
        let item = item.parse().map_err(|_| corrupt(format!("'{}' in '{key}' is not a number", shortened(item))))?;
        numbers.push(item);
    }
    if numbers.len() != count {
        return Err(corrupt(format!("'{key}' has {} entries, {count} were expected", numbers.len())));
    }
    Ok(numbers)
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Inner nodes first, then leaves, as the children are numbered: `-1 - leaf` stands for a leaf.
fn read_nodes(entries: &Entries<'_>) -> Result<Vec<Node>> {
    if entries.get("is_linear").is_some_and(|value| *value != "0") {
        return Err(unsupported("its leaves are linear models (linear_tree)", "train with linear_tree = false"));
    }
    let leaves_count: usize = number(entries, "num_leaves")?;
    if leaves_count == 0 {
        return Err(corrupt("'num_leaves' is 0"));
    }
    let leaves = numbers::<f64>(entries, "leaf_value", leaves_count)?.into_iter().map(Node::Leaf);
    if leaves_count == 1 {
        return Ok(leaves.collect());
    }
    let inner_count = leaves_count - 1;
    let features: Vec<usize> = numbers(entries, "split_feature", inner_count)?;
    let thresholds: Vec<f64> = numbers(entries, "threshold", inner_count)?;
    let decisions: Vec<u8> = numbers(entries, "decision_type", inner_count)?;
    let left: Vec<i64> = numbers(entries, "left_child", inner_count)?;
    let right: Vec<i64> = numbers(entries, "right_child", inner_count)?;
    let mut sets = category_sets(entries)?;
    let child = |number: i64| match usize::try_from(number) {
        Ok(inner) => (inner < inner_count).then_some(inner),
        Err(_) => usize::try_from(-1 - number).ok().filter(|&leaf| leaf < leaves_count).map(|leaf| inner_count + leaf),
    };
    let mut nodes = Vec::with_capacity(inner_count + leaves_count);
    for index in 0..inner_count {
        let place = |number: i64| {
            child(number).ok_or_else(|| corrupt(format!("node {index} has child {number} of {inner_count} nodes")))
        };
        let decision = decisions[index];
        let default_left = decision & 2 != 0;
        let (test, missing) = if decision & 1 != 0 {
            let set = crate::document::whole(thresholds[index]).and_then(|set| sets.get_mut(set)?.take());
            let set = set.ok_or_else(|| corrupt(format!("node {index} has no category set of its own")))?;
            (Test::Categories { set, members_go_left: true }, Missing::Right)
        } else {
            let missing = match (decision >> 2 & 3, default_left) {
                (0, _) => Missing::AsZero,
                (1, true) => Missing::ZeroLeft,
                (1, false) => Missing::ZeroRight,
                (2, true) => Missing::Left,
                (2, false) => Missing::Right,
                _ => return Err(corrupt(format!("node {index} has decision type {decision}"))),
            };
            (Test::Threshold(threshold(thresholds[index])), missing)
        };
        let (left, right) = (place(left[index])?, place(right[index])?);
        nodes.push(Node::Split(Split { feature: features[index], test, missing, left, right }));
    }
    nodes.extend(leaves);
    Ok(nodes)
}

/// The number of training rows at each node, by which `pred_contrib` weighs them, in the order of [`read_nodes`].
fn read_covers(entries: &Entries<'_>) -> Result<Vec<f64>> {
    let leaves_count: usize = number(entries, "num_leaves")?;
    let is_known = |key| entries.get(key).is_some_and(|text| !text.is_empty());
    if leaves_count == 1 || !is_known("internal_count") || !is_known("leaf_count") {
        return Ok(Vec::new());
    }
    let mut covers: Vec<f64> = numbers(entries, "internal_count", leaves_count - 1)?;
    covers.append(&mut numbers(entries, "leaf_count", leaves_count)?);
    Ok(known_covers(Some(covers)))
}

/// LightGBM takes every feature from -1e-35 to 1e-35 for zero. A threshold in that range is moved to its end instead,
/// which asks the same of every value and leaves the features alone.
fn threshold(threshold: f64) -> f64 {
    if (0.0..ZERO_THRESHOLD).contains(&threshold) {
        ZERO_THRESHOLD
    } else if (-ZERO_THRESHOLD..0.0).contains(&threshold) {
        (-ZERO_THRESHOLD).next_down()
    } else {
        threshold
    }
}

/// The category sets of a tree, each for one node.
fn category_sets(entries: &Entries<'_>) -> Result<Vec<Option<Categories>>> {
    let count: usize = if entries.contains_key("num_cat") { number(entries, "num_cat")? } else { 0 };
    if count == 0 {
        return Ok(Vec::new());
    }
    let bounds_count = count.checked_add(1).ok_or_else(|| corrupt("'num_cat' is out of range"))?;
    let bounds: Vec<usize> = numbers(entries, "cat_boundaries", bounds_count)?;
    let words_count = bounds[count];
    let words: Vec<u32> = numbers(entries, "cat_threshold", words_count)?;
    let set = |pair: &[usize]| {
        let words = words.get(pair[0]..pair[1]);
        let words = words.ok_or_else(|| corrupt(format!("'cat_boundaries' has {} before {}", pair[0], pair[1])))?;
        Ok(Some(Categories::from_words(words.to_vec(), true)))
    };
    bounds.windows(2).map(set).collect()
}

/// The link of `name key:value flag...`; an empty objective is a custom one, whose answer is the margin.
fn objective(text: &str) -> Result<LinkKind> {
    let mut words = text.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    let parameters: Vec<&str> = words.collect();
    let scale = || -> Result<f64> {
        match parameters.iter().find_map(|word| word.strip_prefix("sigmoid:")) {
            None => Ok(1.0),
            Some(scale) => {
                scale.parse().map_err(|_| corrupt(format!("the objective's sigmoid is '{}'", shortened(scale))))
            }
        }
    };
    Ok(match name {
        // `reg_sqrt`. Huber is not among them: the library switches it off there, also in a file that says it.
        "regression" | "regression_l2" | "regression_l1" | "fair" | "quantile" | "mape"
            if parameters.contains(&"sqrt") =>
        {
            LinkKind::SignedSquare
        }
        "" | "none" | "custom" | "regression" | "regression_l2" | "regression_l1" | "huber" | "fair" | "quantile"
        | "mape" | "lambdarank" | "rank_xendcg" => LinkKind::Identity,
        "binary" | "multiclassova" => LinkKind::Logistic { scale: scale()? },
        "cross_entropy" => LinkKind::Logistic { scale: 1.0 },
        "cross_entropy_lambda" => LinkKind::Softplus,
        "multiclass" => LinkKind::Softmax,
        "poisson" | "gamma" | "tweedie" => LinkKind::Exponential,
        other => {
            return Err(unsupported(
                format!("the objective is '{}'", shortened(other)),
                "use one of LightGBM's objectives",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn covers_count_the_training_rows_and_may_be_missing() {
        let text = include_str!("../../../tests/models/fixtures/lightgbm_multiclass.txt");
        for tree in read(text.as_bytes()).unwrap().0.trees {
            assert_eq!(tree.covers.len(), tree.nodes.len());
            assert_eq!(tree.covers[0], 600.0);
            for (node, cover) in tree.nodes.iter().zip(&tree.covers) {
                let Node::Split(split) = node else { continue };
                assert_eq!(tree.covers[split.left] + tree.covers[split.right], *cover);
            }
        }
        let silent = text.replace("\ninternal_count=", "\nwas_count=");
        assert!(read(silent.as_bytes()).unwrap().0.trees.iter().all(|tree| tree.covers.is_empty()));
        let short = text.replacen("\nleaf_count=", "\nleaf_count=1 ", 1);
        assert!(read(short.as_bytes()).unwrap_err().message.contains("'leaf_count' has"));
    }
}
