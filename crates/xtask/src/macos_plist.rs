//! Property lists in XML, as far as ours use them.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plist {
    /// `dict`
    Dict(Vec<(String, Plist)>),
    /// `array`
    Array(Vec<Plist>),
    /// `string`
    Text(String),
    /// `integer`
    Integer(i64),
    /// `true` or `false`
    Bool(bool),
}

impl Plist {
    /// Reads a property list.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.split_once("<plist").and_then(|(_, r)| r.split_once('>')).ok_or("no plist")?.1;
        let value = value(&mut rest)?;
        if rest.trim() == "</plist>" { Ok(value) } else { Err(format!("something follows: {}", rest.trim())) }
    }

    /// A value of a dictionary.
    pub fn get(&self, key: &str) -> Option<&Plist> {
        match self {
            Self::Dict(all) => all.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// A text of a dictionary.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Self::Text(t)) => Some(t),
            _ => None,
        }
    }

    /// Whether it is a dictionary or array that holds something.
    pub fn is_filled(&self) -> bool {
        match self {
            Self::Dict(all) => !all.is_empty(),
            Self::Array(all) => !all.is_empty(),
            _ => false,
        }
    }
}

/// The next tag, without its brackets.
fn tag<'a>(rest: &mut &'a str) -> Result<&'a str, String> {
    let trimmed = rest.trim_start();
    let (tag, after) =
        trimmed.strip_prefix('<').and_then(|t| t.split_once('>')).ok_or_else(|| format!("no tag at: {trimmed:.30}"))?;
    *rest = after;
    Ok(tag)
}

fn content(rest: &mut &str, name: &str) -> Result<String, String> {
    let (text, after) = rest.split_once(&format!("</{name}>")).ok_or_else(|| format!("{name} does not end"))?;
    *rest = after;
    if text.contains('<') {
        return Err(format!("a tag in {name}"));
    }
    Ok(text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&"))
}

fn value(rest: &mut &str) -> Result<Plist, String> {
    let name = tag(rest)?;
    open(rest, name)
}

fn open(rest: &mut &str, name: &str) -> Result<Plist, String> {
    match name {
        "true/" => Ok(Plist::Bool(true)),
        "false/" => Ok(Plist::Bool(false)),
        "dict/" => Ok(Plist::Dict(Vec::new())),
        "array/" => Ok(Plist::Array(Vec::new())),
        "string/" => Ok(Plist::Text(String::new())),
        "string" => content(rest, "string").map(Plist::Text),
        "integer" => content(rest, "integer")?.trim().parse().map(Plist::Integer).map_err(|e| format!("integer: {e}")),
        "array" => {
            let mut all = Vec::new();
            loop {
                match tag(rest)? {
                    "/array" => return Ok(Plist::Array(all)),
                    name => all.push(open(rest, name)?),
                }
            }
        }
        "dict" => {
            let mut all: Vec<(String, Plist)> = Vec::new();
            loop {
                match tag(rest)? {
                    "/dict" => return Ok(Plist::Dict(all)),
                    "key" => {
                        let key = content(rest, "key")?;
                        if all.iter().any(|(k, _)| *k == key) {
                            return Err(format!("{key} stands twice"));
                        }
                        all.push((key, value(rest)?));
                    }
                    other => return Err(format!("<{other}> in a dict")),
                }
            }
        }
        other => Err(format!("<{other}> is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = "<?xml?><plist version=\"1.0\"><dict><key>a</key><array><true/><integer>7</integer></array>\
                    <key>b</key><string>x &amp; y</string></dict></plist>";
        let plist = Plist::parse(text).unwrap();
        assert_eq!(plist.get("a"), Some(&Plist::Array(vec![Plist::Bool(true), Plist::Integer(7)])));
        assert_eq!(plist.text("b"), Some("x & y"));
        assert!(Plist::parse(&text.replace("</array>", "")).is_err());
        assert!(Plist::parse(&text.replace("<key>b", "<key>a")).is_err());
    }
}
