//! Registers: the values of one instruction for the rows of a chunk, and the memory behind strings.

use crate::column::ColumnView;
use crate::literal::Literal;
use crate::ops::{Instruction, Storage};
use crate::program::Code;

/// The longest string that an expression makes; a longer one is null. (A part of a longer input is no new string.)
pub const TEXT_BYTES_MAX: usize = 65_536;

/// Where the bytes of a string or bytes value are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TextRef {
    /// The number of an input column, or one of the two below.
    pub(crate) source: u32,
    /// The row of the input column, or the number of the literal.
    pub(crate) row: u32,
    pub(crate) start: u32,
    pub(crate) length: u32,
}

/// The source of literals.
pub(crate) const LITERALS: u32 = u32::MAX;
/// The source of strings made in this chunk.
const MADE: u32 = u32::MAX - 1;

/// The strings made in a chunk.
#[derive(Debug, Default)]
pub(crate) struct TextPool {
    bytes: Vec<u8>,
    /// For one string while it is made.
    pub(crate) buffer: Vec<u8>,
}

impl TextPool {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Keeps a new string, if it is not too long.
    pub(crate) fn keep(&mut self, text: &[u8]) -> Option<TextRef> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (start, length) = (u32::try_from(self.bytes.len()).ok()?, text.len() as u32);
        self.bytes.extend_from_slice(text);
        Some(TextRef { source: MADE, row: 0, start, length })
    }

    pub(crate) fn text<'a>(&'a self, code: &'a Code, inputs: &'a [ColumnView<'_>], at: TextRef) -> &'a [u8] {
        let bytes = match at.source {
            MADE => self.bytes.as_slice(),
            LITERALS => match &code.literals[at.row as usize] {
                Literal::Text(bytes) => bytes,
                _ => return &[],
            },
            input => inputs[input as usize].data.text(at.row as usize),
        };
        let start = at.start as usize;
        bytes.get(start..start + at.length as usize).unwrap_or_default()
    }
}

/// The values of one register for the rows of a chunk.
#[derive(Debug)]
pub(crate) enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Text(Vec<TextRef>),
    List(Lists),
}

/// Lists: each row's range of the items.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) ranges: Vec<(u32, u32)>,
    pub(crate) items: Box<Cells>,
}

impl Lists {
    pub(crate) fn range(&self, row: usize) -> std::ops::Range<usize> {
        let (start, end) = self.ranges[row];
        start as usize..end as usize
    }
}

#[derive(Debug)]
pub(crate) struct Cells {
    pub(crate) valid: Vec<bool>,
    pub(crate) values: Values,
}

impl Cells {
    pub(crate) fn new(storage: Storage, rows: usize) -> Self {
        let list = |items| {
            Values::List(Lists {
                ranges: vec![(0, 0); rows],
                items: Box::new(Cells { valid: Vec::new(), values: items }),
            })
        };
        let values = match storage {
            Storage::Bool => Values::Bool(vec![false; rows]),
            Storage::Int => Values::Int(vec![0; rows]),
            Storage::Float => Values::Float(vec![0.0; rows]),
            Storage::Text => Values::Text(vec![TextRef::default(); rows]),
            Storage::BoolList => list(Values::Bool(Vec::new())),
            Storage::IntList => list(Values::Int(Vec::new())),
            Storage::FloatList => list(Values::Float(Vec::new())),
            Storage::TextList => list(Values::Text(Vec::new())),
        };
        Self { valid: vec![false; rows], values }
    }

    pub(crate) fn fill(&mut self, literal: &Literal, number: u32) {
        self.valid.fill(!matches!(literal, Literal::Null));
        match (&mut self.values, literal) {
            (Values::Bool(cells), Literal::Bool(value)) => cells.fill(*value),
            (Values::Int(cells), Literal::Int(value)) => cells.fill(*value),
            (Values::Float(cells), Literal::Float(value)) => cells.fill(*value),
            (Values::Text(cells), Literal::Text(bytes)) => {
                cells.fill(TextRef { source: LITERALS, row: number, start: 0, length: bytes.len() as u32 });
            }
            _ => {}
        }
    }

    /// Empties the cells of a list's items.
    pub(crate) fn clear(&mut self) {
        self.valid.clear();
        match &mut self.values {
            Values::Bool(values) => values.clear(),
            Values::Int(values) => values.clear(),
            Values::Float(values) => values.clear(),
            Values::Text(values) => values.clear(),
            Values::List(_) => {}
        }
    }
}

/// The value of a register of one row: its bits, or none where a text stands for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowCell {
    pub(crate) valid: bool,
    /// An int, the bits of a float, or 0 and 1.
    pub(crate) word: u64,
}

/// All registers of one row.
#[derive(Debug, Default)]
pub(crate) struct RowCells {
    pub(crate) cells: Vec<RowCell>,
    /// Beside the cells, those of text.
    pub(crate) texts: Vec<TextRef>,
}

impl RowCells {
    /// Registers with the literals filled in.
    pub(crate) fn new(code: &Code) -> Self {
        let count = code.instructions.len();
        let mut row = Self { cells: vec![RowCell::default(); count], texts: vec![TextRef::default(); count] };
        for (register, instruction) in code.instructions.iter().enumerate() {
            let Instruction::Literal(number) = *instruction else { continue };
            let literal = &code.literals[number as usize];
            let word = match literal {
                Literal::Bool(value) => u64::from(*value),
                Literal::Int(value) => *value as u64,
                Literal::Float(value) => value.to_bits(),
                Literal::Null | Literal::Text(_) => 0,
            };
            row.cells[register] = RowCell { valid: !matches!(literal, Literal::Null), word };
            if let Literal::Text(bytes) = literal {
                row.texts[register] = TextRef { source: LITERALS, row: number, start: 0, length: bytes.len() as u32 };
            }
        }
        row
    }
}

pub(crate) const WRONG_STORAGE: &str = "the compiler gives each instruction registers of the storage that it works on";

impl Values {
    pub(crate) fn bools(&self) -> &[bool] {
        match self {
            Values::Bool(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn ints(&self) -> &[i64] {
        match self {
            Values::Int(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn floats(&self) -> &[f64] {
        match self {
            Values::Float(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn texts(&self) -> &[TextRef] {
        match self {
            Values::Text(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn lists(&self) -> &Lists {
        match self {
            Values::List(lists) => lists,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn bools_mut(&mut self) -> &mut [bool] {
        match self {
            Values::Bool(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn ints_mut(&mut self) -> &mut [i64] {
        match self {
            Values::Int(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f64] {
        match self {
            Values::Float(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn texts_mut(&mut self) -> &mut [TextRef] {
        match self {
            Values::Text(cells) => cells,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }

    pub(crate) fn lists_mut(&mut self) -> &mut Lists {
        match self {
            Values::List(lists) => lists,
            _ => unreachable!("{WRONG_STORAGE}"),
        }
    }
}
