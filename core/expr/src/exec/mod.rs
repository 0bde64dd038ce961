//! Runs a program's instructions over a chunk of rows. One row is a chunk of length one, which is why both have the same bits.

mod call;
mod choose;
mod lists;
mod load;
mod row;
mod step;
mod store;
mod text;

use std::ops::Range;

use headrace_types::Result;

pub(crate) use row::{row_steps, run_row};
pub use text::LIST_ITEMS_MAX;

use crate::cells::{Cells, Lists, TextPool, TextRef};
use crate::column::ColumnView;
use crate::constant::Constant;
use crate::ops::{ConstantId, Instruction, Register};
use crate::program::Code;
use crate::scratch::Scratch;

/// Computes some rows of the inputs, and writes them from the output row `place` on.
pub(crate) fn run_chunk(
    code: &Code,
    inputs: &[ColumnView<'_>],
    rows: Range<usize>,
    place: usize,
    scratch: &mut Scratch,
) -> Result<()> {
    let (start, count) = (rows.start, rows.len());
    scratch.pool.clear();
    for (register, instruction) in code.instructions.iter().enumerate() {
        if let Instruction::Literal(_) = instruction {
            continue; // filled when the scratch was made
        }
        let (below, out, pool) = scratch.split(register as Register);
        match *instruction {
            Instruction::Input(input) => load::load(&inputs[input as usize], input, start, count, out, pool),
            Instruction::Call(id) => {
                let mut frame = Frame { code, inputs, below, count, pool };
                call::call(&code.calls[id as usize], &mut frame, out)?;
            }
            _ => step::step(*instruction, &mut Frame { code, inputs, below, count, pool }, out),
        }
    }
    for (output, &register) in scratch.outputs.iter_mut().zip(&code.output_registers) {
        let cells = &scratch.registers[register as usize];
        output.validity[place..place + count].copy_from_slice(&cells.valid[..count]);
        let text = |at| scratch.pool.text(code, inputs, at);
        store::store(cells, place..place + count, &text, &mut output.data);
    }
    Ok(())
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
