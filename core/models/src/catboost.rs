//! CatBoost's model in its JSON form: symmetric and other trees, borders of numbers, one-hot categories.
//!
//! Margins carry CatBoost's own bits: leaves are summed in float64 in the order of the trees, and the bias comes last.
//! Features are compared as float32. The file knows categories by their hashes: a text is given as itself, and a number stands
//! for the category that is written as this number, where all categories that the model asks for are such numbers.

use std::collections::{HashMap, HashSet};

use headrace_cpu::{Categories, Comparison, Ensemble, Missing, Node, Precision, Split, Test, Tree};
use headrace_types::{Result, Unknown, Vocabulary};

use crate::category_words::CategoryWords;
use crate::city_hash::category_hash;
use crate::document::{Document, corrupt, unsupported};
use crate::link::{Link, LinkKind};
use crate::parsed::{Body, Parsed};
use crate::vocabularies::Vocabularies;
use crate::xgboost::OUTPUTS_MAX;
use crate::xgboost_tree::known_covers;

/// Codes among which a category is looked for by its hash.
const CODES_COUNT: u32 = 1 << 16;

pub(crate) fn parse(document: &Document) -> Result<Parsed> {
    let (ensemble, link, vocabularies) = read(document)?;
    Ok(Parsed { vocabularies, ..Parsed::new(Body::Trees(ensemble), link) })
}

fn read(document: &Document) -> Result<(Ensemble, Link, Vocabularies)> {
    let features = FeatureList::read(document.get("features_info")?)?;
    let (scale, biases) = scale_and_biases(document)?;
    let symmetric = document.find("oblivious_trees")?.is_some();
    let documents = document.list(if symmetric { "oblivious_trees" } else { "trees" })?;
    let mut trees = Vec::with_capacity(documents.len());
    let outputs_count = if biases.len() > 1 { Some(biases.len()) } else { None };
    let mut reader = TreeReader { features: &features, scale, outputs_count, category_words: CategoryWords::default() };
    for (index, tree) in documents.iter().enumerate() {
        let tree = if symmetric { reader.symmetric(tree) } else { reader.other(tree) };
        trees.push(tree.map_err(|error| error.within(format!("tree {index}")))?);
    }
    let outputs_count = reader.outputs_count.unwrap_or(1);
    if biases.iter().any(|&bias| bias != 0.0) {
        let has_vectors =
            trees.iter().flat_map(|tree: &Tree| &tree.nodes).any(|node| matches!(node, Node::VectorLeaf(_)));
        let mut of_all = biases.clone();
        of_all.resize(outputs_count, 0.0);
        let leaves = match (has_vectors, outputs_count) {
            (true, _) => vec![(0, Node::VectorLeaf(of_all.into_boxed_slice()))],
            (false, _) => of_all.into_iter().enumerate().map(|(output, bias)| (output, Node::Leaf(bias))).collect(),
        };
        trees.extend(
            leaves.into_iter().map(|(output, leaf)| Tree { covers: vec![1.0], ..Tree::new(output, vec![leaf]) }),
        );
    }
    let ensemble = Ensemble {
        features_precision: Precision::Float32,
        precision: Precision::Float64,
        comparison: Comparison::LessEqual,
        features_count: features.count,
        outputs_count,
        base: vec![0.0; outputs_count],
        trees,
    };
    Ok((ensemble, Link::new(loss(document)?, Precision::Float64), features.vocabularies()))
}

/// `[scale, [bias, ...]]`, or of earlier versions `[scale, bias]`.
fn scale_and_biases(document: &Document) -> Result<(f64, Vec<f64>)> {
    let wrong = || corrupt("'scale_and_bias' is not a scale and a list of biases");
    let (scale, biases) = match document.get("scale_and_bias")? {
        Document::Numbers(numbers) => match numbers[..] {
            [scale, bias] => (scale, vec![bias]),
            _ => return Err(wrong()),
        },
        Document::List(items) => match &items[..] {
            [Document::Number(scale), Document::Numbers(biases)] => (*scale, biases.clone()),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    if biases.len() > OUTPUTS_MAX || biases.iter().any(|bias| !bias.is_finite()) {
        return Err(wrong());
    }
    // Multiplying each leaf by a power of two is multiplying their sum by it, to the bit.
    if !scale.is_normal() || scale < 0.0 || scale.to_bits() << 12 != 0 {
        return Err(unsupported(format!("its scale is {scale}"), "save the model with a scale of 1"));
    }
    Ok((scale, biases))
}

/// The link of the loss that the model was trained with.
fn loss(document: &Document) -> Result<LinkKind> {
    let mut at = document;
    for key in ["model_info", "params", "loss_function"] {
        match at.find(key)? {
            Some(found) => at = found,
            None => return Ok(LinkKind::Identity),
        }
    }
    Ok(match at.text("type")? {
        "Logloss" | "CrossEntropy" | "Focal" | "MultiLogloss" | "MultiCrossEntropy" | "MultiClassOneVsAll" => {
            LinkKind::Logistic { scale: 1.0 }
        }
        "MultiClass" => LinkKind::Softmax,
        "Poisson" | "Tweedie" => LinkKind::Exponential,
        "RMSEWithUncertainty" => {
            return Err(unsupported("the loss is 'RMSEWithUncertainty'", "train with RMSE, or with MultiQuantile"));
        }
        _ => LinkKind::Identity,
    })
}

/// The features of the model, by the numbers that splits know them by.
struct FeatureList {
    count: usize,
    /// The places in a row that features have.
    places: HashSet<usize>,
    /// The place in a row, and where a missing value goes.
    numbers: Vec<(usize, Missing)>,
    categories: Vec<CategoryFeature>,
}

struct CategoryFeature {
    /// The place in a row.
    place: usize,
    /// The codes of the hashes that splits ask for; the category 'nan' has none: it is the missing value.
    codes: HashMap<u32, u32>,
    /// Whether a code is the number that the category is written as, and not the place of its hash in the file.
    has_numbers: bool,
}

impl CategoryFeature {
    /// `numbers` are the hashes of the numbers that can be codes.
    fn read(place: usize, feature: &Document, numbers: &HashMap<u32, u32>) -> Result<Self> {
        let values = feature.find("values")?.map_or(Ok(&[][..]), |_| feature.numbers("values"))?;
        let hashes = values.iter().map(|&value| signed_hash(value)).collect::<Result<Vec<_>>>()?;
        let named = hashes.into_iter().filter(|&hash| hash != category_hash("nan"));
        let as_numbers: Option<HashMap<u32, u32>> =
            named.clone().map(|hash| Some((hash, *numbers.get(&hash)?))).collect();
        let has_numbers = as_numbers.is_some();
        Ok(Self { place, codes: as_numbers.unwrap_or_else(|| named.zip(0..).collect()), has_numbers })
    }

    fn vocabulary(&self) -> Vocabulary {
        let codes = self.codes.iter().map(|(&hash, &code)| (hash, code.into()));
        let missing = (category_hash("nan"), f64::NAN);
        let mut vocabulary = Vocabulary::of_hashes(codes.chain([missing]).collect(), category_hash);
        (vocabulary.unknown, vocabulary.takes_codes) = (Unknown::Code(UNKNOWN_CODE), self.has_numbers);
        vocabulary
    }
}

/// What stands for a text that no split asks for.
const UNKNOWN_CODE: f64 = -1.0;

impl FeatureList {
    fn read(info: &Document) -> Result<Self> {
        for kind in ["text", "embedding"] {
            if info.find(&format!("{kind}_features"))?.is_some() && !info.list(&format!("{kind}_features"))?.is_empty()
            {
                return Err(unsupported(format!("it has {kind} features"), "train on numbers and categories only"));
            }
        }
        let list = |key: &str| info.find(key)?.map_or(Ok(&[][..]), |_| info.list(key));
        let mut features = Self { count: 0, places: HashSet::new(), numbers: Vec::new(), categories: Vec::new() };
        for (index, feature) in list("float_features")?.iter().enumerate() {
            let missing = match feature.text("nan_value_treatment")? {
                "AsTrue" => Missing::Right,
                "AsIs" | "AsFalse" => Missing::Left,
                other => return Err(corrupt(format!("'nan_value_treatment' is '{other}'"))),
            };
            let place = features.place(feature, index)?;
            features.numbers.push((place, missing));
        }
        let categorical = list("categorical_features")?;
        let numbers_count = if categorical.is_empty() { 0 } else { CODES_COUNT };
        let codes = (0..numbers_count).map(|code| (category_hash(&code.to_string()), code)).collect();
        for (index, feature) in categorical.iter().enumerate() {
            let place = features.place(feature, index)?;
            let category = CategoryFeature::read(place, feature, &codes);
            features.categories.push(category.map_err(|error| error.within(format!("categorical feature {index}")))?);
        }
        Ok(features)
    }

    fn place(&mut self, feature: &Document, index: usize) -> Result<usize> {
        if feature.count("feature_index")? != index {
            return Err(corrupt(format!("feature {index} stands in another's place")));
        }
        let place = feature.count("flat_feature_index")?;
        if !self.places.insert(place) {
            return Err(corrupt(format!("two features have the place {place} in a row")));
        }
        self.count = self.count.max(place.checked_add(1).ok_or_else(|| corrupt("a feature's index is out of range"))?);
        Ok(place)
    }

    fn vocabularies(&self) -> Vocabularies {
        self.categories.iter().map(|feature| (feature.place, feature.vocabulary())).collect()
    }

    /// A node without its children; the right one takes the rows for which the split is true.
    fn split(&self, split: &Document) -> Result<(usize, Test, Missing)> {
        match split.text("split_type")? {
            "FloatFeature" => {
                let index = split.count("float_feature_index")?;
                let (place, missing) = *self.numbers.get(index).ok_or_else(|| unknown_feature(index))?;
                Ok((place, Test::Threshold(split.number("border")?), missing))
            }
            "OneHotFeature" => {
                let index = split.count("cat_feature_index")?;
                let feature = self.categories.get(index).ok_or_else(|| unknown_feature(index))?;
                let place = feature.place;
                let hash = signed_hash(split.number("value")?)?;
                if hash == category_hash("nan") {
                    let set = Categories::from_words(Vec::new(), false);
                    return Ok((place, Test::Categories { set, members_go_left: false }, Missing::Right));
                }
                // A category that only the splits know would be found as a number, and not as the text that is written alike.
                let code = *feature.codes.get(&hash).ok_or_else(|| {
                    unsupported(
                        format!("categorical feature {index} has a category that its list lacks"),
                        "export the model again from the library that trained it",
                    )
                })?;
                let mut words = vec![0; code as usize / 32 + 1];
                words[code as usize / 32] = 1 << (code % 32);
                let set = Categories::from_words(words, false);
                Ok((place, Test::Categories { set, members_go_left: false }, Missing::Left))
            }
            "OnlineCtr" => Err(unsupported(
                "it replaces categories by statistics of the training set (CTR)",
                "train with one_hot_max_size at least the number of categories of each feature, or encode categories first",
            )),
            other => {
                Err(unsupported(format!("it has splits of the type '{other}'"), "train on numbers and categories"))
            }
        }
    }
}

fn unknown_feature(index: usize) -> headrace_types::Error {
    corrupt(format!("a split names feature {index}, which is not listed"))
}

/// A hash of 32 bits, which the file holds as a signed number.
fn signed_hash(number: f64) -> Result<u32> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range is checked, and bits are kept
    let hash = number as i64 as u32;
    let is_sound = number.fract() == 0.0 && (-2_147_483_648.0..4_294_967_296.0).contains(&number);
    if is_sound { Ok(hash) } else { Err(corrupt(format!("{number} is not the hash of a category"))) }
}

struct TreeReader<'a> {
    features: &'a FeatureList,
    scale: f64,
    /// Of the trees so far, or of the biases.
    outputs_count: Option<usize>,
    category_words: CategoryWords,
}

impl TreeReader<'_> {
    fn leaf(&mut self, values: &[f64]) -> Result<Node> {
        let count = *self.outputs_count.get_or_insert(values.len());
        if values.len() != count || count == 0 || count > OUTPUTS_MAX {
            return Err(corrupt(format!("a leaf has {} values, {count} were expected", values.len())));
        }
        let scaled: Vec<f64> = values.iter().map(|value| value * self.scale).collect();
        Ok(if let [value] = scaled[..] { Node::Leaf(value) } else { Node::VectorLeaf(scaled.into()) })
    }

    /// All nodes of a level ask the same; bit `i` of a leaf's number is the answer to split `i`.
    fn symmetric(&mut self, tree: &Document) -> Result<Tree> {
        let (splits, values) = (tree.list("splits")?, tree.numbers("leaf_values")?);
        let leaves_count = u32::try_from(splits.len()).ok().and_then(|depth| 1usize.checked_shl(depth));
        let leaves_count = leaves_count.filter(|&count| !values.is_empty() && values.len().is_multiple_of(count));
        let leaves_count = leaves_count
            .ok_or_else(|| corrupt(format!("it has {} splits and {} leaf values", splits.len(), values.len())))?;
        let mut nodes = Vec::with_capacity(2 * leaves_count - 1);
        for split in splits.iter().rev() {
            let (feature, test, missing) = self.features.split(split)?;
            self.category_words.take(words_of(&test).saturating_mul(nodes.len() + 1))?;
            for index in nodes.len()..2 * nodes.len() + 1 {
                let (left, right) = (2 * index + 1, 2 * index + 2);
                nodes.push(Node::Split(Split { feature, test: test.clone(), missing, left, right }));
            }
        }
        for values in values.chunks_exact(values.len() / leaves_count) {
            nodes.push(self.leaf(values)?);
        }
        let weights = if tree.find("leaf_weights")?.is_some() { tree.numbers("leaf_weights")? } else { &[] };
        Ok(Tree { covers: symmetric_covers(weights, leaves_count), ..Tree::new(0, nodes) })
    }

    /// A tree of nodes inside each other: `left` and `right` with a `split`, or a `value` and a `weight`.
    fn other(&mut self, tree: &Document) -> Result<Tree> {
        let mut nodes: Vec<Option<Node>> = vec![None];
        let mut covers = vec![0.0];
        let mut parents = vec![0];
        let mut pending = vec![(tree, 0)];
        while let Some((document, at)) = pending.pop() {
            if document.find("split")?.is_none() {
                let leaf = match document.get("value")? {
                    Document::Number(value) => self.leaf(&[*value])?,
                    _ => self.leaf(document.numbers("value")?)?,
                };
                nodes[at] = Some(leaf);
                covers[at] = if document.find("weight")?.is_some() { document.number("weight")? } else { f64::NAN };
                continue;
            }
            let (feature, test, missing) = self.features.split(document.get("split")?)?;
            self.category_words.take(words_of(&test))?;
            let (left, right) = (nodes.len(), nodes.len() + 1);
            nodes[at] = Some(Node::Split(Split { feature, test, missing, left, right }));
            for (key, child) in [("left", left), ("right", right)] {
                nodes.push(None);
                covers.push(0.0);
                parents.push(at);
                pending.push((document.get(key)?, child));
            }
        }
        // A child comes after its parent, so one pass from the end gives every parent the sum of its children.
        for at in (1..covers.len()).rev() {
            covers[parents[at]] += covers[at];
        }
        Ok(Tree { covers: known_covers(Some(covers)), ..Tree::new(0, nodes.into_iter().flatten().collect()) })
    }
}

fn words_of(test: &Test) -> usize {
    match test {
        Test::Threshold(_) => 0,
        Test::Categories { set, .. } => set.words_count(),
    }
}

/// Weights of the leaves, and above them the sums of their children.
fn symmetric_covers(weights: &[f64], leaves_count: usize) -> Vec<f64> {
    if weights.len() != leaves_count {
        return Vec::new();
    }
    let mut covers = vec![0.0; leaves_count - 1];
    covers.extend_from_slice(weights);
    for at in (0..leaves_count - 1).rev() {
        covers[at] = covers[2 * at + 1] + covers[2 * at + 2];
    }
    known_covers(Some(covers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scales_that_are_no_power_of_two_are_refused() {
        let document =
            |scale: &str| Document::from_json(format!(r#"{{"scale_and_bias": [{scale}, [1, 2]]}}"#).as_bytes());
        assert_eq!(scale_and_biases(&document("0.5").unwrap()).unwrap(), (0.5, vec![1.0, 2.0]));
        assert_eq!(scale_and_biases(&document("1").unwrap()).unwrap().0, 1.0);
        for scale in ["0.3", "3", "0", "-1"] {
            assert!(scale_and_biases(&document(scale).unwrap()).unwrap_err().message.contains("its scale is"));
        }
        let scalar = Document::from_json(br#"{"scale_and_bias": [1, 0.25]}"#).unwrap();
        assert_eq!(scale_and_biases(&scalar).unwrap(), (1.0, vec![0.25]));
    }

    #[test]
    fn covers_of_symmetric_trees_are_sums() {
        assert_eq!(symmetric_covers(&[1.0, 2.0, 3.0, 4.0], 4), [10.0, 3.0, 7.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(symmetric_covers(&[1.0], 2), [0.0; 0]);
    }
}
