//! Lists of numbers in JSON, read at once: most of a large request is one.

/// Numbers that room is made for before any is read.
const CAPACITY_MAX: usize = 4096;
/// A short number, its comma and a sign.
const NUMBER_BYTES: usize = 8;
/// Whole numbers up to 2^53, and powers of ten up to 10^22, are floats exactly, so their quotient is rounded once and right
/// (Clinger, "How to read floating point numbers accurately", 1990).
const EXACT_END: u64 = 1 << 53;
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
const WHOLE_POWERS_OF_TEN: [u64; 9] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// Digits that surely fit a `u64`.
const DIGITS_MAX: usize = 19;

/// The flat list of numbers at the front of a text, each the nearest `f64`, and what follows it. None for anything else that JSON may be or
/// not be, for a number beyond all floats, and for more than `items_max`: the reader of single values tells those with a place and a reason.
pub(crate) fn flat_numbers(text: &[u8], items_max: usize) -> Option<(Vec<f64>, &[u8])> {
    let mut rest = after_spaces(text.strip_prefix(b"[")?);
    if let Some(rest) = rest.strip_prefix(b"]") {
        return Some((Vec::new(), rest));
    }
    let mut numbers = Vec::with_capacity((rest.len() / NUMBER_BYTES).min(items_max).min(CAPACITY_MAX));
    loop {
        let (number, after) = number(rest)?;
        if numbers.len() == items_max {
            return None;
        }
        numbers.push(number);
        let (&next, after) = after_spaces(after).split_first()?;
        match next {
            b',' => rest = after_spaces(after),
            b']' => return Some((numbers, after)),
            _ => return None,
        }
    }
}

/// The number at the front of a text, by the grammar of JSON, and what follows it.
fn number(text: &[u8]) -> Option<(f64, &[u8])> {
    let is_negative = text.first() == Some(&b'-');
    let mut digits = Digits { text, at: usize::from(is_negative), value: 0, count: 0 };
    let whole = digits.take();
    if whole == 0 || (whole > 1 && text[digits.at - whole] == b'0') {
        return None;
    }
    let mut fraction = 0;
    if digits.skip(b'.') {
        fraction = digits.take();
        if fraction == 0 {
            return None;
        }
    }
    let is_short = digits.count <= DIGITS_MAX && digits.value <= EXACT_END && fraction < POWERS_OF_TEN.len();
    let mut value = None;
    if digits.skip(b'e') || digits.skip(b'E') {
        let _signed = digits.skip(b'+') || digits.skip(b'-');
        if digits.take() == 0 {
            return None;
        }
    } else if is_short {
        #[allow(clippy::cast_precision_loss)] // up to 2^53 there is none
        let size = digits.value as f64 / POWERS_OF_TEN[fraction];
        value = Some(if is_negative { -size } else { size });
    }
    let (read, rest) = text.split_at(digits.at);
    let value =
        value.or_else(|| std::str::from_utf8(read).ok()?.parse().ok()).filter(|value: &f64| value.is_finite())?;
    Some((value, rest))
}

/// Goes over the digits of a number.
struct Digits<'a> {
    text: &'a [u8],
    at: usize,
    /// Of all digits so far, as one whole number; nonsense when there are too many.
    value: u64,
    count: usize,
}

impl Digits<'_> {
    /// How many digits come next. Eight bytes at a time, without a branch for each digit: how many there are is hard to guess.
    #[inline(always)]
    fn take(&mut self) -> usize {
        let begin = self.at;
        while let Some(eight) = self.text.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let (digits, value) = leading_digits(u64::from_le_bytes(*eight));
            self.value = self.value.wrapping_mul(WHOLE_POWERS_OF_TEN[digits]).wrapping_add(value);
            self.at += digits;
            if digits < 8 {
                return self.taken_since(begin);
            }
        }
        while let Some(digit) = self.text.get(self.at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
            self.value = self.value.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        self.taken_since(begin)
    }

    #[inline(always)]
    fn taken_since(&mut self, begin: usize) -> usize {
        self.count += self.at - begin;
        self.at - begin
    }

    #[inline(always)]
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }
}

/// How many of eight bytes, the first in the lowest place, are digits before another byte comes, and the number that those make.
#[inline(always)]
fn leading_digits(eight: u64) -> (usize, u64) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let values = eight ^ (EACH * u64::from(b'0'));
    // The high bit of each byte that is no digit: of those above 9, which reach it by adding, and of those that have it. A sum that does
    // not fit its byte changes only those behind it, and it is no digit itself.
    let others = (values.wrapping_add(EACH * 0x76) | values) & (EACH * 0x80);
    let digits = (others.trailing_zeros() / 8) as usize;
    if digits == 0 {
        return (0, 0);
    }
    // Zeros before the digits, so that the last one is in the highest byte; then pairs, fours and eights are joined.
    let aligned = values << (64 - 8 * digits);
    let pairs = (aligned * 10).wrapping_add(aligned >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let all = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    (digits, all)
}

/// The numbers as `f32`, where that says the same as reading them one by one does: none where one becomes infinite, or may have been a
/// whole number that `f64` does not hold exactly.
pub(crate) fn narrowed(numbers: &[f64]) -> Option<Vec<f32>> {
    #[allow(clippy::cast_possible_truncation)] // the nearest f32
    all_below_exact_end(numbers).then(|| numbers.iter().map(|number| *number as f32).collect())
}

/// The numbers as whole ones; none where one is not, or is too large to be sure.
pub(crate) fn whole(numbers: &[f64]) -> Option<Vec<i64>> {
    let is_whole = all_below_exact_end(numbers) && numbers.iter().all(|number| number.fract() == 0.0);
    #[allow(clippy::cast_possible_truncation)] // checked
    is_whole.then(|| numbers.iter().map(|number| *number as i64).collect())
}

fn all_below_exact_end(numbers: &[f64]) -> bool {
    #[allow(clippy::cast_precision_loss)] // a power of two
    numbers.iter().all(|number| number.abs() < EXACT_END as f64)
}

pub(crate) fn after_spaces(text: &[u8]) -> &[u8] {
    match text.first() {
        Some(b' ' | b'\n' | b'\t' | b'\r') => after_many_spaces(text),
        _ => text,
    }
}

fn after_many_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r')).count();
    &text[spaces..]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Vec<f64>> {
        flat_numbers(text.as_bytes(), 100).and_then(|(numbers, rest)| rest.is_empty().then_some(numbers))
    }

    #[test]
    fn numbers_are_those_that_a_json_reader_makes_of_them() {
        let texts = [
            "0",
            "-0",
            "-0.0",
            "0.0",
            "1",
            "-17",
            "0.1",
            "1e5",
            "1E+5",
            "1e-7",
            "5e-324",
            "2e-324",
            "4503599627370496.5",
            "1.7976931348623157e308",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.0",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "0.30000000000000004",
            "123456789012345678901234567890",
            "2.2250738585072011e-308",
            "7.2057594037927933e16",
            "8.5234598172364987e-1",
            "0.0000000000000000000001",
            "0.00000000000000000000001",
            "0.000000000000000000000000000000000000000000000000000000000000000000000000000001",
            "1.00000000000000011102230246251565404236316680908203125",
            "12345678901234567890.5",
            "0e0",
            "-1E-0",
        ];
        for text in texts {
            let expected: f64 = serde_json::from_str(text).unwrap();
            assert_eq!(read(&format!("[{text}]")).unwrap()[0].to_bits(), expected.to_bits(), "{text}");
        }
        let all: Vec<f64> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        for (comma, around) in [(",", ""), (", ", " "), ("\n\t,\r ", "\n")] {
            assert_eq!(read(&format!("[{around}{}{around}]", texts.join(comma))), Some(all.clone()));
        }
        assert_eq!((read("[]"), read("[ ]")), (Some(Vec::new()), Some(Vec::new())));
    }

    #[test]
    fn everything_else_is_left_to_the_reader_of_single_values() {
        for text in [
            "",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "null",
            "{}",
            "\"1\"",
            "1",
            "[null]",
            "[1,null]",
            "[true]",
            "[\"1\"]",
            "[[1]]",
            "[1,[2]]",
            "[{}]",
            "[1e400]",
            "[1, -1e309]",
            "[NaN]",
            "[inf]",
            "[-]",
            "[+1]",
            "[.5]",
            "[1.]",
            "[01]",
            "[-01]",
            "[00.5]",
            "[1e]",
            "[1e+]",
            "[1.e5]",
            "[0x1]",
            "[1_0]",
            "[1\u{a0}]",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(flat_numbers(b"[1,2,3]", 2), None);
        assert_eq!(flat_numbers(b"[1,2] ,", 2), Some((vec![1.0, 2.0], &b" ,"[..])));
    }

    #[test]
    fn narrow_and_whole_numbers_are_those_of_single_values() {
        assert_eq!(narrowed(&[0.1, -3.0, 1e-50]), Some(vec![0.1, -3.0, 0.0]));
        assert_eq!((narrowed(&[1e39]), narrowed(&[1.0, 9_007_199_254_740_992.0])), (None, None));
        assert_eq!(whole(&[1.0, -0.0, -7.0]), Some(vec![1, 0, -7]));
        assert_eq!((whole(&[1.5]), whole(&[9_007_199_254_740_992.0])), (None, None));
    }

    proptest! {
        #[test]
        fn any_text_of_a_number_is_read_as_a_json_reader_reads_it(text in "-?[0-9]{1,22}(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
            let expected: Option<f64> = serde_json::from_str(&text).ok();
            let found = read(&format!("[{text}]")).map(|numbers| numbers[0].to_bits());
            prop_assert_eq!(found, expected.map(f64::to_bits));
        }

        #[test]
        fn the_shortest_text_of_a_float_gives_it_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("[{value}]"), format!("[{value:e}]"), serde_json::to_string(&[value]).unwrap()] {
                prop_assert_eq!(read(&text).unwrap()[0].to_bits(), bits);
            }
        }
    }
}
