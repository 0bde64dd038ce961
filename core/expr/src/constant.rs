//! What an instruction holds besides registers: zones, boundaries, keys and values, separators.

use ahash::AHashMap;

use crate::zone::Zone;

#[derive(Debug)]
pub(crate) enum Constant {
    Zone(Zone),
    Text(Box<[u8]>),
    /// Strictly ascending, without NaN.
    Boundaries(Box<[f64]>),
    Table(Table),
}

/// Keys, and a value for each where the table is one to look up in.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) keys: Keys,
    pub(crate) values: TableValues,
}

/// Distinct keys; a key's number is its place in the definition.
#[derive(Debug)]
pub(crate) enum Keys {
    /// Sorted, with the number of each.
    Ints(Box<[(i64, u32)]>),
    /// Sorted, without NaN.
    Floats(Box<[f64]>),
    Texts(AHashMap<Box<[u8]>, u32>),
    /// A few, in the order of the definition.
    FewTexts(Box<[Box<[u8]>]>),
}

/// One value for each key, by the key's number.
#[derive(Debug)]
pub(crate) enum TableValues {
    None,
    Bool(Box<[bool]>),
    Int(Box<[i64]>),
    Float(Box<[f64]>),
    /// Numbers of literals.
    Text(Box<[u32]>),
}

/// Up to so many keys a walk beats a search.
pub(crate) const WALK_MAX: usize = 8;

impl Keys {
    pub(crate) fn find_int(&self, key: i64) -> Option<u32> {
        let Keys::Ints(keys) = self else { return None };
        if keys.len() <= WALK_MAX {
            return keys.iter().find(|(known, _)| *known == key).map(|(_, number)| *number);
        }
        keys.binary_search_by_key(&key, |(known, _)| *known).ok().map(|place| keys[place].1)
    }

    pub(crate) fn has_float(&self, key: f64) -> bool {
        let Keys::Floats(keys) = self else { return false };
        let place = keys.partition_point(|known| *known < key);
        keys.get(place).is_some_and(|known| *known == key)
    }

    pub(crate) fn find_text(&self, key: &[u8]) -> Option<u32> {
        match self {
            Keys::Texts(keys) => keys.get(key).copied(),
            Keys::FewTexts(keys) => keys.iter().position(|known| **known == *key).map(|place| place as u32),
            _ => None,
        }
    }
}

impl Constant {
    pub(crate) fn zone(&self) -> &Zone {
        match self {
            Constant::Zone(zone) => zone,
            _ => unreachable!("{WRONG_CONSTANT}"),
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Constant::Text(text) => text,
            _ => unreachable!("{WRONG_CONSTANT}"),
        }
    }

    pub(crate) fn boundaries(&self) -> &[f64] {
        match self {
            Constant::Boundaries(boundaries) => boundaries,
            _ => unreachable!("{WRONG_CONSTANT}"),
        }
    }

    pub(crate) fn table(&self) -> &Table {
        match self {
            Constant::Table(table) => table,
            _ => unreachable!("{WRONG_CONSTANT}"),
        }
    }
}

const WRONG_CONSTANT: &str = "the compiler gives each instruction a constant of its sort";
