// The tabs of the first visit: a model's way into a folder, one step a tab.

// Names in the variables that stand for what an earlier tab answers.
export const REVISION = 'ID_OF_A_REVISION';
export const FOLDER = 'ID_OF_A_FOLDER';
export const TASK = 'ID_OF_A_TASK';
export const PATH = 'PATH_OF_A_TASK';

const variables = (value) => JSON.stringify(value, null, 2);

export const STARTERS = [
  {
    query: `# 1. Find a model in the registry.
#
# Five tabs lead from here to its files in a folder of
# yours. Run each with the button or Ctrl-Enter, from
# left to right. The variables below name the model.
# The explorer, at the left, lists all that can be asked.
mutation ScanModel($models: [ModelTarget!]!) {
  scanArtifactModels(input: {models: $models}) {
    artifactRevision {
      edges {
        node {
          id
          version
          size
          digest
          status
          artifact {
            name
          }
        }
      }
    }
  }
}
`,
    variables: variables({ models: [{ modelId: 'sample/tiny-bert' }] }),
  },
  {
    query: `# 2. Create a folder to import into, on the default host.
mutation CreateFolder($name: String!) {
  createVfolder(input: {name: $name, usageMode: MODEL}) {
    vfolder {
      id
      name
      host
      permission
      status
    }
  }
}
`,
    variables: variables({ name: 'my-models' }),
  },
  {
    query: `# 3. Import the revision into the folder. The ids below
# are those that tabs 1 and 2 answered.
mutation ImportModel($revisions: [ID!]!, $folder: ID!) {
  importArtifacts(
    input: {artifactRevisionIds: $revisions, vfolderId: $folder}
  ) {
    tasks {
      taskId
      task {
        status
        path
      }
      artifactRevision {
        version
      }
    }
  }
}
`,
    variables: variables({ revisions: [REVISION], folder: FOLDER }),
  },
  {
    query: `# 4. Watch the import: how it stands now, then every
# change, until it ends.
subscription WatchImport($task: ID!) {
  importTaskUpdated(taskId: $task) {
    status
    step
    filesDone
    filesTotal
    bytesDone
    bytesTotal
    bytesPerSecond
    commit
    error {
      code
      message
    }
  }
}
`,
    variables: variables({ task: TASK }),
  },
  {
    query: `# 5. List the files that have arrived.
query ListFiles($folder: ID!, $path: String) {
  vfolderFiles(vfolderId: $folder, path: $path) {
    path
    size
    isDirectory
    modifiedAt
  }
}
`,
    variables: variables({ folder: FOLDER, path: PATH }),
  },
];

// Finds in an answer what the names above stand for.
export function found(answer, into = {}) {
  for (const [key, value] of Object.entries(answer ?? {})) {
    if (value && typeof value === 'object') {
      if (key === 'task' && typeof value.path === 'string') into[PATH] = value.path;
      found(value, into);
    } else if (key === 'taskId' && value) {
      into[TASK] = value;
    } else if (key === 'id' && typeof value === 'string') {
      const type = typeOf(value);
      if (type === 'ArtifactRevision') into[REVISION] = value;
      if (type === 'VFolder') into[FOLDER] = value;
      if (type === 'ImportTask') into[TASK] = value;
    }
  }
  return into;
}

function typeOf(globalId) {
  try {
    return atob(globalId).split(':')[0];
  } catch {
    return '';
  }
}
