// SPDX-License-Identifier: MIT OR Apache-2.0

//! The documents: JSON that commands print, and files of which there is a schema.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use schemars::generate::SchemaSettings;
use schemars::{schema_for, JsonSchema, Schema};
use serde::Serialize;

use super::{
    bench_trees, bisect, boot, compare, doctor, golden, image, image_list, merge, report,
    reproduce, selfcheck, series,
};
use mutexlab_judge::claims::report::Report;
use mutexlab_judge::matrix::Matrix;
use mutexlab_lens_analysis::analysis::Analysis;
use mutexlab_lens_analysis::difference::Difference;
use mutexlab_results::record::Results;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::Scenario;
use mutexlab_subjects::SubjectFile;

/// A kind of document, each with a schema of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Document {
    /// A question in TOML: the files in scenarios/
    Scenario,
    /// A subject in TOML: the files in scenarios/subjects/
    Subject,
    /// What was measured: the files in results/, too
    Results,
    /// The boots and cells that a scenario amounts to
    Plan,
    /// What differs between two runs
    Compare,
    /// The commit that changed a metric
    Bisect,
    /// What moved from golden counts: a list with one for each file
    Golden,
    /// How tests and cells ended on every kernel, and what a packet costs there
    Matrix,
    /// What came of joining results files
    Merge,
    /// What the page shows, and what it could not read
    Report,
    /// The verdicts on the claims: the files in results/claims/, too
    Claims,
    /// Where a packet's instructions and cache lines go: a list with one for each cell, which are files, too
    Lens,
    /// What differs between two analyses of the lens: a list with one for each cell
    LensDiff,
    /// Kernel trees beside each other
    Trees,
    /// What commits of a kernel did to the counts
    Series,
    /// How the tests of a run ended
    Test,
    /// The tests that there are: a list
    TestList,
    /// Whether a results file's numbers could be made again
    Reproduce,
    /// Whether the instrument can be trusted
    Selfcheck,
    /// A boot, and what the agent told in it
    Boot,
    /// A kernel's image
    Image,
    /// The kernels of the catalogue, and their images: a list
    ImageList,
    /// What a kernel's image depends on, as one hash
    ImageKey,
    /// What is wrong with images: a list with one for each
    ImageVerify,
    /// A packed image
    ImagePack,
    /// An image that was unpacked
    ImageUnpack,
    /// What of the cache can go: a list
    ImagePrune,
    /// The prerequisites, and what was found of them: a list
    Doctor,
    /// The schemas that there are: a list
    SchemaList,
}

/// A schema.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listed {
    /// Its name, for `mutexlab schema NAME`.
    pub name: String,
    /// Its file in the repository.
    pub file: PathBuf,
    /// The commands that print such a document with `--json`; none if it is only read.
    pub printed_by: &'static [&'static str],
}

impl Document {
    /// Its name on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The commands that print it with `--json`; none if it is only read.
    pub const fn printed_by(self) -> &'static [&'static str] {
        match self {
            Self::Scenario | Self::Subject => &[],
            Self::Results => &["bench"],
            Self::Plan => &["bench --plan"],
            Self::Compare => &["compare"],
            Self::Bisect => &["bisect"],
            Self::Golden => &["golden"],
            Self::Matrix => &["matrix"],
            Self::Merge => &["merge"],
            Self::Report => &["report"],
            Self::Claims => &["claims"],
            Self::Lens => &["lens"],
            Self::LensDiff => &["lens --diff"],
            Self::Trees => &["bench --tree"],
            Self::Series => &["series"],
            Self::Test => &["test"],
            Self::TestList => &["test --list"],
            Self::Reproduce => &["reproduce"],
            Self::Selfcheck => &["selfcheck"],
            Self::Boot => &["boot"],
            Self::Image => &["image build", "image path"],
            Self::ImageList => &["image list"],
            Self::ImageKey => &["image key"],
            Self::ImageVerify => &["image verify"],
            Self::ImagePack => &["image pack"],
            Self::ImageUnpack => &["image unpack"],
            Self::ImagePrune => &["image prune"],
            Self::Doctor => &["doctor"],
            Self::SchemaList => &["schema"],
        }
    }

    /// Where its schema lies in the repository: beside files of its kind, or with the documentation.
    pub fn schema_file(self) -> PathBuf {
        match self {
            Self::Scenario => "scenarios/schema.json".into(),
            Self::Subject => "scenarios/subjects/schema.json".into(),
            Self::Results => "results/schema.json".into(),
            Self::Claims => "results/claims/schema.json".into(),
            _ => format!("docs/json/{}.schema.json", self.name()).into(),
        }
    }

    /// Its schema, draft 2020-12.
    pub fn schema(self) -> Schema {
        match self {
            // People and programs write these, too: what may be left out is not required.
            Self::Scenario => schema_for!(Scenario),
            Self::Subject => schema_for!(SubjectFile),
            Self::Results => schema_for!(Results),
            Self::Claims => schema_for!(Report<'_>),
            Self::Plan => self.printed::<Plan>(),
            Self::Compare => self.printed::<compare::Document<'_>>(),
            Self::Bisect => self.printed::<bisect::Report>(),
            Self::Golden => self.printed::<Vec<golden::Document<'_>>>(),
            Self::Matrix => self.printed::<Matrix<'_>>(),
            Self::Merge => self.printed::<merge::Document<'_>>(),
            Self::Report => self.printed::<report::Document<'_>>(),
            Self::Lens => self.printed::<Vec<Analysis>>(),
            Self::LensDiff => self.printed::<Vec<Difference>>(),
            Self::Trees => self.printed::<bench_trees::Document<'_>>(),
            Self::Series => self.printed::<series::Document<'_>>(),
            Self::Test => self.printed::<mutexlab_suite::Document<'_>>(),
            Self::TestList => self.printed::<Vec<mutexlab_suite::Listed>>(),
            Self::Reproduce => self.printed::<reproduce::Outcome<'_>>(),
            Self::Selfcheck => self.printed::<selfcheck::Report<'_>>(),
            Self::Boot => self.printed::<boot::Document<'_>>(),
            Self::Image => self.printed::<image_list::ListedImage>(),
            Self::ImageList => self.printed::<Vec<image_list::Listed<'_>>>(),
            Self::ImageKey => self.printed::<image::Keyed>(),
            Self::ImageVerify => self.printed::<Vec<image::Verified>>(),
            Self::ImagePack => self.printed::<mutexlab_images::pack::Packed>(),
            Self::ImageUnpack => self.printed::<image::Unpacked>(),
            Self::ImagePrune => self.printed::<Vec<image::Pruned>>(),
            Self::Doctor => self.printed::<Vec<doctor::Finding>>(),
            Self::SchemaList => self.printed::<Vec<Listed>>(),
        }
    }

    /// Its schema as a file's text.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn schema_text(self) -> Result<String> {
        let text = serde_json::to_string_pretty(&self.schema()).context("cannot write JSON")?;
        Ok(text + "\n")
    }

    /// What there is to say of its schema.
    pub fn listed(self) -> Listed {
        Listed {
            name: self.name(),
            file: self.schema_file(),
            printed_by: self.printed_by(),
        }
    }

    /// The schema of what is only printed: whatever is always there is required.
    fn printed<T: JsonSchema>(self) -> Schema {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let mut schema = settings.into_generator().into_root_schema_for::<T>();
        let commands: Vec<_> = (self.printed_by().iter())
            .map(|command| format!("mutexlab {command} --json"))
            .collect();
        schema.insert("title".to_owned(), commands.join(", ").into());
        let value = self.to_possible_value();
        let about = value.as_ref().and_then(|value| value.get_help());
        if let (None, Some(about)) = (schema.get("description"), about) {
            schema.insert("description".to_owned(), format!("{about}.").into());
        }
        schema
    }
}
