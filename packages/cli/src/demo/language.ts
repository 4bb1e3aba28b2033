/** Languages by file name; what is not listed is plain text. */
import { extname } from "node:path/posix";

const BY_EXTENSION: Readonly<Record<string, string>> = {
  ".c": "C",
  ".cc": "C++",
  ".cpp": "C++",
  ".cs": "C#",
  ".css": "CSS",
  ".csv": "CSV",
  ".cjs": "JavaScript",
  ".cts": "TypeScript",
  ".go": "Go",
  ".h": "C",
  ".html": "HTML",
  ".java": "Java",
  ".js": "JavaScript",
  ".json": "JSON",
  ".jsx": "JavaScript",
  ".kt": "Kotlin",
  ".lua": "Lua",
  ".md": "Markdown",
  ".mjs": "JavaScript",
  ".mts": "TypeScript",
  ".php": "PHP",
  ".py": "Python",
  ".rb": "Ruby",
  ".rs": "Rust",
  ".sh": "Shell",
  ".sql": "SQL",
  ".svg": "SVG",
  ".swift": "Swift",
  ".toml": "TOML",
  ".ts": "TypeScript",
  ".tsx": "TypeScript",
  ".xml": "XML",
  ".yaml": "YAML",
  ".yml": "YAML",
};

const BY_NAME: Readonly<Record<string, string>> = {
  Dockerfile: "Dockerfile",
  Makefile: "Makefile",
};

/** @param path with forward slashes */
export function languageOf(path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return BY_NAME[name] ?? BY_EXTENSION[extname(name).toLowerCase()] ?? "Text";
}
