//! Modules of one script, joined while the server is compiled: each is a module of its own for tools and
//! tests, and who loads the script gets one file that imports nothing.

/// Length of the joined modules, in bytes. See [`join`].
///
/// # Panics
///
/// If an import takes more than one line.
pub const fn joined_length(modules: &[&str]) -> usize {
    let mut length = 0;
    let mut index = 0;
    while index < modules.len() {
        let text = modules[index].as_bytes();
        let mut at = 0;
        while at < text.len() {
            let line = Line::at(text, at, index == 0);
            length += line.end - line.kept_from;
            at = line.end;
        }
        index += 1;
    }
    length
}

/// Joins modules: without the lines that import, and without what exports in all but the first.
/// A name that two of them have is an error where the script is loaded.
///
/// # Panics
///
/// If an import takes more than one line, or `N` is not the [`joined_length`].
pub const fn join<const N: usize>(modules: &[&str]) -> [u8; N] {
    let mut joined = [0; N];
    let mut free: &mut [u8] = &mut joined;
    let mut index = 0;
    while index < modules.len() {
        let text = modules[index].as_bytes();
        let mut at = 0;
        while at < text.len() {
            let line = Line::at(text, at, index == 0);
            let (_, from) = text.split_at(line.kept_from);
            let (kept, _) = from.split_at(line.end - line.kept_from);
            let (place, rest) = free.split_at_mut(kept.len());
            place.copy_from_slice(kept);
            free = rest;
            at = line.end;
        }
        index += 1;
    }
    assert!(free.is_empty(), "N is the joined length");
    joined
}

/// A line of a module, by the places of its bytes.
struct Line {
    /// Where that begins which is kept of it.
    kept_from: usize,
    /// Where the next one begins.
    end: usize,
}

impl Line {
    const fn at(text: &[u8], start: usize, may_export: bool) -> Self {
        let mut end = start;
        while end < text.len() && text[end] != b'\n' {
            end += 1;
        }
        let is_import = begins_with(text, start, b"import ");
        assert!(
            !is_import || text[end - 1] == b';',
            "an import takes one line"
        );
        if end < text.len() {
            end += 1;
        }
        let kept_from = if is_import {
            end
        } else if !may_export && begins_with(text, start, EXPORT) {
            start + EXPORT.len()
        } else {
            start
        };
        Self { kept_from, end }
    }
}

const EXPORT: &[u8] = b"export ";

const fn begins_with(text: &[u8], start: usize, word: &[u8]) -> bool {
    let mut index = 0;
    while index < word.len() {
        if start + index >= text.len() || text[start + index] != word[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined<const N: usize>(modules: &[&str]) -> String {
        assert_eq!(joined_length(modules), N);
        String::from_utf8(join::<N>(modules).to_vec()).expect("whole lines are UTF-8")
    }

    #[test]
    fn imports_go_and_only_the_first_module_exports() {
        let entry = "import { f } from \"./f.js\";\nexport { f };\n";
        let part =
            "import { g } from \"./g.js\";\n// important\nexport const f = \"ü\";\nlet exports;";
        let expected = "export { f };\n// important\nconst f = \"ü\";\nlet exports;";
        assert_eq!(joined::<55>(&[entry, part]), expected);
    }

    #[test]
    fn nothing_joins_to_nothing() {
        assert_eq!(joined::<0>(&[]), "");
        assert_eq!(joined::<0>(&["", ""]), "");
    }

    #[test]
    #[should_panic(expected = "an import takes one line")]
    fn an_import_of_many_lines_is_refused() {
        joined_length(&["import {\n  f,\n} from \"./f.js\";\n"]);
    }
}
