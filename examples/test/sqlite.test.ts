import { exampleTests } from "./examples-suite.js";

exampleTests("sqlite");
