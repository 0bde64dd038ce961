//! Approximate numbers of distinct values: HyperLogLog, exact while they are few.

use headrace_cpu::{Vectorized, vectorized};
use headrace_types::Result;

use crate::bytes::{Reader, put_varint};
use crate::hash::{hash_bytes, hash_float, hash_word};

const FORMAT: u8 = 1;
const NAME: &str = "distinct sketch";
/// Bits of a hash that choose its register: 4096 registers, a standard error of 1.04 / 64 = 1.6 %.
pub const PRECISION_BITS: u32 = 12;
const REGISTERS: usize = 1 << PRECISION_BITS;
/// The largest value of a register: every bit behind the register's is zero.
const RANK_MAX: u8 = (64 - PRECISION_BITS + 1) as u8;
/// Hashes that are remembered while they are added one by one.
const RECENT: usize = 1024;
/// Testing pays where at most one hash in 16 passes.
const RANK_TESTED_MIN: u8 = 4;
/// Up to so many distinct hashes are kept as they are (in as many bytes as the registers take), and the count is exact.
pub const EXACT_HASHES_MAX: usize = 512;

/// How many distinct values there are among many, in at most 4 KiB, mergeable in any order.
///
/// It holds hashes of the values: all of them up to [`EXACT_HASHES_MAX`], then HyperLogLog's registers (Flajolet et al., 2007, with
/// the 64-bit hash of HyperLogLog++). The estimate is Ertl's (arXiv:1702.01284, algorithm 6), which is unbiased over the whole range
/// and so needs no tables of corrections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinctSketch {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Ascending.
    Exact(Vec<u64>),
    Registers(Box<[u8; REGISTERS]>),
}

impl Default for DistinctSketch {
    fn default() -> Self {
        Self { state: State::Exact(Vec::new()) }
    }
}

impl DistinctSketch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a float; all NaN are one value, and both zeros are one.
    pub fn add_float(&mut self, value: f64) {
        self.add_hash(hash_float(value));
    }

    /// Adds an integer, a bool or a timestamp.
    pub fn add_int(&mut self, value: i64) {
        self.add_hash(hash_word(value as u64));
    }

    /// Adds a string's UTF-8, or bytes.
    pub fn add_bytes(&mut self, value: &[u8]) {
        self.add_hash(hash_bytes(value));
    }

    /// Adds a value by its hash, which must be one of this crate's.
    #[inline]
    pub fn add_hash(&mut self, hash: u64) {
        match &mut self.state {
            State::Registers(registers) => raise(registers, hash),
            State::Exact(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                    self.spill();
                }
            }
        }
    }

    /// Adds many values by their hashes.
    pub fn add_hashes(&mut self, hashes: &[u64]) {
        if let State::Registers(registers) = &mut self.state {
            return vectorized(RaiseAll(registers, hashes));
        }
        // Few values come again and again: what was just added need not be looked for. At first each entry is a hash that belongs
        // elsewhere.
        let mut recent = [1; RECENT];
        recent[1] = 0;
        let mut rest = hashes.iter();
        while let State::Exact(_) = self.state {
            let Some(hash) = rest.next() else { return };
            let last = &mut recent[*hash as usize % RECENT];
            if std::mem::replace(last, *hash) != *hash {
                self.add_hash(*hash);
            }
        }
        self.add_hashes(rest.as_slice());
    }

    /// Goes over to registers when there are too many hashes to keep.
    fn spill(&mut self) {
        if let State::Exact(hashes) = &self.state
            && hashes.len() > EXACT_HASHES_MAX
        {
            let mut registers = Box::new([0; REGISTERS]);
            hashes.iter().for_each(|hash| raise(&mut registers, *hash));
            self.state = State::Registers(registers);
        }
    }

    /// Adds what another sketch has seen.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.state, &other.state) {
            (_, State::Exact(hashes)) => self.add_hashes(hashes),
            (State::Registers(mine), State::Registers(theirs)) => {
                mine.iter_mut().zip(theirs.iter()).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
            }
            (State::Exact(hashes), State::Registers(theirs)) => {
                let mut registers = theirs.clone();
                hashes.iter().for_each(|hash| raise(&mut registers, *hash));
                self.state = State::Registers(registers);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(&self.state, State::Exact(hashes) if hashes.is_empty())
    }

    /// Whether the estimate is the number itself (but for two values of one hash, 1 in 10^14 at 512 values).
    pub fn is_exact(&self) -> bool {
        matches!(self.state, State::Exact(_))
    }

    /// The bytes that it takes beside this structure.
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::Exact(hashes) => hashes.capacity() * size_of::<u64>(),
            State::Registers(_) => REGISTERS,
        }
    }

    /// How many distinct values there are, approximately.
    pub fn estimate(&self) -> f64 {
        match &self.state {
            State::Exact(hashes) => hashes.len() as f64,
            State::Registers(registers) => estimate(registers),
        }
    }

    /// The sketch as bytes: format 1, then 0 and the ascending hashes (their number as a varint, then 8 little-endian bytes each), or
    /// 1 and the 4096 registers, a byte each.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.state {
            State::Exact(hashes) => {
                let mut out = vec![FORMAT, 0];
                put_varint(&mut out, hashes.len() as u64);
                hashes.iter().for_each(|hash| out.extend(hash.to_le_bytes()));
                out
            }
            State::Registers(registers) => [&[FORMAT, 1], registers.as_slice()].concat(),
        }
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// `corrupt_store` or `newer_format`.
    pub fn from_bytes(data: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(NAME, data, FORMAT)?;
        let state = match reader.take(1)?[0] {
            0 => {
                let length = reader.varint()?;
                if length > EXACT_HASHES_MAX as u64 {
                    return Err(reader.corrupt("it has too many hashes"));
                }
                let hashes: Vec<u64> = (0..length).map(|_| reader.word()).collect::<Result<_>>()?;
                if !hashes.is_sorted_by(|a, b| a < b) {
                    return Err(reader.corrupt("its hashes are not in order"));
                }
                State::Exact(hashes)
            }
            1 => {
                let mut registers = Box::new([0; REGISTERS]);
                registers.copy_from_slice(reader.take(REGISTERS)?);
                if registers.iter().any(|rank| *rank > RANK_MAX) {
                    return Err(reader.corrupt("a register is too large"));
                }
                State::Registers(registers)
            }
            _ => return Err(reader.corrupt("it holds neither hashes nor registers")),
        };
        reader.finish()?;
        Ok(Self { state })
    }
}

/// The first bits of a hash choose a register; it keeps the largest rank, the place of the first 1 among the bits behind.
#[inline(always)]
fn raise(registers: &mut [u8; REGISTERS], hash: u64) {
    let index = (hash >> (64 - PRECISION_BITS)) as usize;
    // The bit below the hash ends the count at RANK_MAX.
    let rank = ((hash << PRECISION_BITS) | (1 << (PRECISION_BITS - 1))).leading_zeros() as u8 + 1;
    let register = &mut registers[index & (REGISTERS - 1)];
    // A store that is not made is one that the next load need not wait for.
    if rank > *register {
        *register = rank;
    }
}

/// Raises registers for many hashes.
struct RaiseAll<'a>(&'a mut [u8; REGISTERS], &'a [u64]);

impl Vectorized for RaiseAll<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(registers, hashes) = self;
        let lowest = registers.iter().fold(u8::MAX, |lowest, rank| lowest.min(*rank));
        if lowest < RANK_TESTED_MIN {
            return hashes.iter().for_each(|hash| raise(registers, *hash));
        }
        // Now most hashes cannot raise theirs: a rank above `lowest` has zeros in the `lowest` bits behind the register's.
        let zeros = !(u64::MAX >> lowest) >> PRECISION_BITS;
        hashes.iter().filter(|hash| *hash & zeros == 0).for_each(|hash| raise(registers, *hash));
    }
}

/// Ertl's improved raw estimator from the number of registers of each rank.
fn estimate(registers: &[u8; REGISTERS]) -> f64 {
    let mut ranks = [0u32; RANK_MAX as usize + 1];
    for rank in registers {
        ranks[usize::from(*rank)] += 1;
    }
    let m = REGISTERS as f64;
    let last = usize::from(RANK_MAX);
    let mut z = m * tau(1.0 - f64::from(ranks[last]) / m);
    for count in ranks[1..last].iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += m * sigma(f64::from(ranks[0]) / m);
    m * m / (2.0 * std::f64::consts::LN_2) / z
}

/// x + sum of x^(2^k) * 2^(k-1) over k >= 1.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// (1 - x - sum of (1 - x^(2^-k))^2 * 2^-k over k >= 1) / 3.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}
