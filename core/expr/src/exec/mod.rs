//! Runs a program's instructions over a chunk of rows. One row is a chunk of length one, which is why both have the same bits.

mod choose;
mod lists;
mod load;
mod step;
mod store;
mod text;

pub use text::LIST_ITEMS_MAX;

use crate::cells::{Cells, Lists, TextPool, TextRef};
use crate::column::ColumnView;
use crate::constant::Constant;
use crate::ops::{ConstantId, Instruction, Register};
use crate::program::Code;
use crate::scratch::Scratch;

pub(crate) fn run_chunk(code: &Code, inputs: &[ColumnView<'_>], start: usize, count: usize, scratch: &mut Scratch) {
    scratch.pool.clear();
    for (register, instruction) in code.instructions.iter().enumerate() {
        if let Instruction::Literal(_) = instruction {
            continue; // filled when the scratch was made
        }
        let (below, out, pool) = scratch.split(register as Register);
        match *instruction {
            Instruction::Input(input) => load::load(&inputs[input as usize], input, start, count, out, pool),
            _ => step::step(*instruction, &mut Frame { code, inputs, below, count, pool }, out),
        }
    }
    for (output, &register) in scratch.outputs.iter_mut().zip(&code.output_registers) {
        let cells = &scratch.registers[register as usize];
        output.validity[start..start + count].copy_from_slice(&cells.valid[..count]);
        let text = |at| scratch.pool.text(code, inputs, at);
        store::store(cells, start..start + count, &text, &mut output.data);
    }
}

/// What an instruction works with besides the register that it writes.
struct Frame<'a> {
    code: &'a Code,
    inputs: &'a [ColumnView<'a>],
    /// The registers that are written already.
    below: &'a [Cells],
    /// Rows of the chunk.
    count: usize,
    pool: &'a mut TextPool,
}

impl<'a> Frame<'a> {
    fn cells(&self, register: Register) -> &'a Cells {
        &self.below[register as usize]
    }

    fn valid(&self, register: Register) -> &'a [bool] {
        &self.cells(register).valid[..self.count]
    }

    fn bools(&self, register: Register) -> &'a [bool] {
        &self.cells(register).values.bools()[..self.count]
    }

    fn ints(&self, register: Register) -> &'a [i64] {
        &self.cells(register).values.ints()[..self.count]
    }

    fn floats(&self, register: Register) -> &'a [f64] {
        &self.cells(register).values.floats()[..self.count]
    }

    fn texts(&self, register: Register) -> &'a [TextRef] {
        &self.cells(register).values.texts()[..self.count]
    }

    fn lists(&self, register: Register) -> &'a Lists {
        self.cells(register).values.lists()
    }

    fn constant(&self, id: ConstantId) -> &'a Constant {
        &self.code.constants[id as usize]
    }

    fn text(&self, at: TextRef) -> &[u8] {
        self.pool.text(self.code, self.inputs, at)
    }
}
