import { demoTests } from "./demo-suite.js";

demoTests(
  { options: () => [], shown: /on \S+demo\.db, / },
  { options: ({ db }) => ["--db", db], shown: /on \S+store\.db, / },
);
