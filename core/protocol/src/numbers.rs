//! Lists of numbers in JSON, read at once: most of a large request is one.

use serde_json::value::RawValue;

/// Numbers that room is made for before any is read.
const CAPACITY_MAX: usize = 4096;
/// The shortest number and its comma.
const NUMBER_BYTES_MIN: usize = 2;

/// The items of a flat list of numbers, each the nearest `f64`; none for any other JSON, for a number beyond all floats, and for more than
/// `items_max`, which the reader of single values tells with a place and a reason.
pub(crate) fn flat_numbers(json: &RawValue, items_max: usize) -> Option<Vec<f64>> {
    let mut rest = after_spaces(json.get().as_bytes().strip_prefix(b"[")?);
    let mut numbers = Vec::with_capacity((rest.len() / NUMBER_BYTES_MIN).min(items_max).min(CAPACITY_MAX));
    if rest == b"]" {
        return Some(numbers);
    }
    loop {
        // The text is JSON, so what reads as a number here is one there too; names such as NaN cannot come.
        let (number, bytes) = lexical_core::parse_partial::<f64>(rest).ok()?;
        if bytes == 0 || !number.is_finite() || numbers.len() == items_max {
            return None;
        }
        numbers.push(number);
        rest = after_spaces(rest.get(bytes..)?);
        let (&next, after) = rest.split_first()?;
        match next {
            b',' => rest = after_spaces(after),
            b']' => return Some(numbers),
            _ => return None,
        }
    }
}

/// The numbers as `f32`, where that says the same as reading them one by one does: none where one becomes infinite, or may have been a
/// whole number that `f64` does not hold exactly.
pub(crate) fn narrowed(numbers: &[f64]) -> Option<Vec<f32>> {
    const EXACT_END: f64 = 9_007_199_254_740_992.0; // 2^53
    let fits = |number: &f64| number.abs() < EXACT_END;
    #[allow(clippy::cast_possible_truncation)] // the nearest f32
    numbers.iter().all(fits).then(|| numbers.iter().map(|number| *number as f32).collect())
}

fn after_spaces(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Option<Vec<f64>> {
        flat_numbers(serde_json::from_str(text).unwrap(), 100)
    }

    #[test]
    fn numbers_are_those_that_a_json_reader_makes_of_them() {
        let texts = [
            "0",
            "-0",
            "-0.0",
            "1",
            "-17",
            "0.1",
            "1e5",
            "1E+5",
            "1e-7",
            "5e-324",
            "2e-324",
            "1.7976931348623157e308",
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "0.30000000000000004",
            "123456789012345678901234567890",
            "2.2250738585072011e-308",
            "7.2057594037927933e16",
            "0.000000000000000000000000000000000000000000000000000000000000000000000000000001",
            "8.5234598172364987e-1",
            "1.00000000000000011102230246251565404236316680908203125",
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
            "[\"NaN\"]",
            "[1, \"inf\"]",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(flat_numbers(serde_json::from_str("[1,2,3]").unwrap(), 2), None);
        assert_eq!(flat_numbers(serde_json::from_str("[1,2]").unwrap(), 2), Some(vec![1.0, 2.0]));
    }

    #[test]
    fn narrow_numbers_are_those_of_single_values() {
        assert_eq!(narrowed(&[0.1, -3.0, 1e-50]), Some(vec![0.1, -3.0, 0.0]));
        assert_eq!(narrowed(&[1e39]), None);
        assert_eq!(narrowed(&[1.0, 9_007_199_254_740_992.0]), None);
    }
}
