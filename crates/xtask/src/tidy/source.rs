//! A Rust file as far as tidy needs it: comments and strings blanked, test code marked, functions.

/// A source file.
pub struct Source<'a> {
    /// Path from the root of the repository.
    pub path: &'a str,
    /// The text as it is.
    pub text: &'a str,
    /// The lines with comments and the contents of strings replaced by blanks.
    pub code: Vec<String>,
    /// For every line: it belongs to tests.
    pub test: Vec<bool>,
}

/// A function with a body.
pub struct Function {
    /// Its name.
    pub name: String,
    /// Lines from its `fn` to its closing brace.
    pub lines: usize,
}

impl<'a> Source<'a> {
    /// Reads a file.
    pub fn new(path: &'a str, text: &'a str) -> Self {
        let code: Vec<String> = strip(text).lines().map(str::to_owned).collect();
        let whole = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/");
        let test = if whole { vec![true; code.len()] } else { mark_tests(&code) };
        Self { path, text, code, test }
    }

    /// Number of lines.
    pub fn lines(&self) -> usize {
        self.code.len()
    }

    /// Every function with a body, tests included.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (start, line) in self.code.iter().enumerate() {
            if let Some(name) = function_name(line)
                && let Some(end) = body_end(&self.code, start)
            {
                found.push(Function { name, lines: end - start + 1 });
            }
        }
        found
    }
}

/// The name if a function starts in this line.
fn function_name(line: &str) -> Option<String> {
    let trimmed = line.trim_start();
    let at = if trimmed.starts_with("fn ") { 0 } else { trimmed.find(" fn ")? + 1 };
    let before = &trimmed[..at];
    let qualifier = |w: &str| {
        w.starts_with("pub") || w.ends_with(')') || matches!(w, "const" | "async" | "unsafe" | "extern" | "default")
    };
    if !before.split_whitespace().all(|w| qualifier(w) || w.chars().all(|c| c == '"' || c == ' ')) {
        return None;
    }
    let name: String = trimmed[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The line of the brace that closes the first brace opened at or after `start`; none for a
/// declaration without a body.
fn body_end(code: &[String], start: usize) -> Option<usize> {
    let (mut depth, mut nesting) = (0i64, 0i64);
    for (number, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '(' | '[' => nesting += 1,
                ')' | ']' => nesting -= 1,
                ';' if depth == 0 && nesting == 0 => return None,
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(number);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

/// Marks the items behind `#[cfg(test)]`.
fn mark_tests(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    let mut line = 0;
    while line < code.len() {
        if code[line].trim_start().starts_with("#[cfg(") && code[line].contains("test") {
            let end = body_end(code, line + 1).unwrap_or(line + 1).min(code.len() - 1);
            test[line..=end].fill(true);
            line = end;
        }
        line += 1;
    }
    test
}

/// Replaces comments and the contents of strings and characters by blanks; line breaks stay.
pub fn strip(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at, &mut out);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            at = end;
        }
    }
    out
}

/// If a comment or literal starts at `at`, writes its blanked form and gives its end.
fn skip(chars: &[char], at: usize, out: &mut String) -> usize {
    let peek = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    let end = match (peek(0), peek(1)) {
        ('/', '/') => find(chars, at, |c, _| c == '\n'),
        ('/', '*') => block_comment(chars, at),
        ('"', _) => quoted(chars, at, '"'),
        ('r', '"' | '#') if !word_before(chars, at) => raw_string(chars, at, 1),
        ('b', 'r') if matches!(peek(2), '"' | '#') && !word_before(chars, at) => raw_string(chars, at, 2),
        // A lifetime has no second quote right behind one character.
        ('\'', '\\') => quoted(chars, at, '\''),
        ('\'', _) if peek(2) == '\'' => at + 3,
        _ => at,
    };
    for (i, c) in chars[at..end].iter().enumerate() {
        let edge = (i == 0 || i + 1 == end - at) && *c == '"';
        out.push(if *c == '\n' || edge { *c } else { ' ' });
    }
    end
}

fn word_before(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn find(chars: &[char], from: usize, stop: impl Fn(char, usize) -> bool) -> usize {
    (from..chars.len()).find(|i| stop(chars[*i], *i)).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => {
                (depth, i) = (depth - 1, i + 2);
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    chars.len()
}

fn quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// The end of a raw string whose hashes start `skip` characters after `at`; `at` itself if it is
/// something else, such as a raw identifier.
fn raw_string(chars: &[char], at: usize, skip: usize) -> usize {
    let hashes = chars[at + skip..].iter().take_while(|c| **c == '#').count();
    let open = at + skip + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let close =
        |i: usize| chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (open + 1..chars.len()).find(|i| close(*i)).map_or(chars.len(), |i| i + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strip_blanks_comments_and_strings() {
        assert_eq!(strip("a // b\nc"), "a     \nc");
        assert_eq!(strip("x(\"{\\\"}\", 'a', '{', '\\'')"), "x(\"    \",    ,    ,     )");
        assert_eq!(strip("r#\"{\"}\"# b"), "         b");
        assert_eq!(strip("/* a /* { */ } */b"), "                 b");
        assert_eq!(strip("fn f<'a>(x: &'a u8) {}"), "fn f<'a>(x: &'a u8) {}");
    }

    #[test]
    fn functions_are_measured() {
        let text =
            "trait T { fn a(&self); }\npub(crate) const fn b(\n    x: [u8; 3],\n) {\n    // }\n}\nlet f = x fn\n";
        let source = Source::new("crates/a/src/b.rs", text);
        let found: Vec<(String, usize)> = source.functions().into_iter().map(|f| (f.name, f.lines)).collect();
        assert_eq!(found, [("b".to_owned(), 5)]);
    }

    #[test]
    fn test_items_are_marked() {
        let source =
            Source::new("crates/a/src/b.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    use x;\n}\nfn b() {}\n");
        assert_eq!(source.test, [false, true, true, true, true, false]);
    }
}
