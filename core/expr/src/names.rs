/// The largest number of names that a suggestion lists.
const SUGGESTIONS_MAX: usize = 3;

/// A hint that lists the known names nearest to a name that is not known, or all of them when they are few.
///
/// `what` is the plural of the thing, such as `views`.
pub fn did_you_mean<'a>(name: &str, what: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut ranked: Vec<(usize, &str)> =
        known.into_iter().map(|candidate| (edit_distance(name, candidate), candidate)).collect();
    if ranked.is_empty() {
        return format!("there are no {what} yet");
    }
    ranked.sort_unstable();
    let near: Vec<&str> = ranked
        .iter()
        .filter(|(distance, candidate)| *distance <= name.len().max(candidate.len()) / 2)
        .map(|r| r.1)
        .collect();
    let quoted = |names: &[&str]| names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
    if !near.is_empty() {
        format!("did you mean {}?", quoted(&near[..near.len().min(SUGGESTIONS_MAX)]))
    } else {
        let all: Vec<&str> = ranked.iter().map(|r| r.1).collect();
        let more = if all.len() > SUGGESTIONS_MAX { ", ..." } else { "" };
        format!("the {what} are {}{more}", quoted(&all[..all.len().min(SUGGESTIONS_MAX)]))
    }
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one name into the other.
fn edit_distance(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let width = other.len() + 1;
    let mut table = vec![0; (one.len() + 1) * width];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            table[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substitution = usize::from(!one[i - 1].eq_ignore_ascii_case(&other[j - 1]));
                let mut best = (table[(i - 1) * width + j] + 1)
                    .min(table[i * width + j - 1] + 1)
                    .min(table[(i - 1) * width + j - 1] + substitution);
                if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                    best = best.min(table[(i - 2) * width + j - 2] + 1);
                }
                best
            };
        }
    }
    table[table.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_first() {
        let hint = did_you_mean("wether", "views", ["plane", "weather", "carrier_delay"]);
        assert_eq!(hint, "did you mean 'weather'?");
    }

    #[test]
    fn far_names_are_listed() {
        assert_eq!(did_you_mean("xyz", "views", ["plane", "weather"]), "the views are 'plane', 'weather'");
        assert_eq!(did_you_mean("xyz", "views", []), "there are no views yet");
    }

    #[test]
    fn swapped_neighbours_count_once() {
        assert_eq!(edit_distance("wind", "wnid"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
